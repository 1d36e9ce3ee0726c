//! Where the objects of the D-Bus face lie: names that both of its ends make in the same way.

use crate::name::{ClientName, TargetName};
use alloc::format;
use alloc::string::String;
use core::fmt::Write;

/// The name on the system bus.
pub const NAME: &str = "org.strongroom.Appliance1";
/// The appliance as a whole; all other objects lie below.
pub const ROOT: &str = "/org/strongroom/Appliance1";
/// The clock.
pub const CLOCK: &str = "/org/strongroom/Appliance1/clock";
/// The array.
pub const ARRAY: &str = "/org/strongroom/Appliance1/array";

/// A name as a part of an object's path: what is no letter or digit becomes `_` and its code in hexadecimal digits, as
/// systemd does it for units. Two names never become the same; an empty one becomes `_`.
pub fn label(name: &str) -> String {
    if name.is_empty() {
        return "_".into();
    }
    let mut label = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() {
            label.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(label, "_{byte:02x}");
        }
    }
    label
}

/// A disk, by its serial number.
pub fn disk(serial: &str) -> String {
    format!("{ROOT}/disk/{}", label(serial))
}

/// A client.
pub fn client(name: &ClientName) -> String {
    format!("{ROOT}/client/{}", label(name.as_str()))
}

/// A client's copy at a target.
pub fn target(name: &ClientName, target: &TargetName) -> String {
    format!("{}/target/{}", client(name), label(target.as_str()))
}

/// A job, by its identity.
pub fn job(id: &str) -> String {
    format!("{ROOT}/job/{}", label(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_parts_of_paths() {
        assert_eq!(label("asus_home"), "asus_5fhome");
        assert_eq!(label("WD-1 ä"), "WD_2d1_20_c3_a4");
        assert_eq!(label(""), "_");
        let name = ClientName::new("asus-1").unwrap();
        assert_eq!(client(&name), "/org/strongroom/Appliance1/client/asus_2d1");
    }

    proptest! {
        #[test]
        fn two_names_are_two_labels(one in ".{0,12}", other in ".{0,12}") {
            prop_assert_eq!(one == other, label(&one) == label(&other));
            prop_assert!(label(&one).bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
        }
    }
}
