//! chronyd's command protocol, version 6: requests and replies as bytes. Pure.
//!
//! Source of all numbers and forms: chrony's candm.h, addressing.h and util.c, of chrony 4.0 to 4.8. Integers are big-endian.
//! A request is as long as its reply at least, padded with zeros, so that nobody can have a victim flooded through chronyd.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use strongroom_model::clock::Tracking;
use strongroom_model::status::{Leap, TimeSource, TimeSourceState};
use strongroom_model::text::Text;

/// `PROTO_VERSION_NUMBER`
const VERSION: u8 = 6;
/// `PKT_TYPE_CMD_REQUEST`
const REQUEST: u8 = 1;
/// `PKT_TYPE_CMD_REPLY`
const REPLY: u8 = 2;
/// Where a request's own fields begin.
const REQUEST_HEAD: usize = 20;
/// Where a reply's own fields begin.
const REPLY_HEAD: usize = 28;
/// Longest reply of those that are asked for: that with a name.
pub const REPLY_MAX: usize = REPLY_HEAD + 256;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// The reference (`chronyc tracking`).
    Tracking,
    /// How many sources there are.
    SourceCount,
    /// The source of this index.
    Source(u32),
    /// The name by which the source of this address was configured.
    SourceName(Address),
}

/// An address as chronyd has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// None, as of a reference clock.
    None,
    /// Of the internet.
    Ip(IpAddr),
    /// Of a source whose name isn't resolved yet: a number.
    Unresolved(u32),
}

/// Why a reply is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It answers another request, or is none.
    #[error("it belongs to another request")]
    Another,
    /// chronyd refuses; holds its status.
    #[error("chronyd refuses with status {0}")]
    Refused(u16),
    /// It is too short, or holds what is not known.
    #[error("its form is not known")]
    Form,
}

impl Request {
    /// Number of the command, number of its reply, and the length of the reply's own fields.
    fn numbers(self) -> (u16, u16, usize) {
        match self {
            Self::SourceCount => (14, 2, 4),
            Self::Source(_) => (15, 3, 48),
            Self::Tracking => (33, 5, 76),
            Self::SourceName(_) => (65, 19, 256),
        }
    }

    /// The request as it is sent. `sequence` comes back in the reply.
    pub fn encode(self, sequence: u32) -> Vec<u8> {
        let (command, _, fields) = self.numbers();
        let mut bytes = vec![0; REPLY_HEAD + fields];
        bytes[0] = VERSION;
        bytes[1] = REQUEST;
        bytes[4..6].copy_from_slice(&command.to_be_bytes());
        bytes[8..12].copy_from_slice(&sequence.to_be_bytes());
        match self {
            Self::Source(index) => bytes[REQUEST_HEAD..REQUEST_HEAD + 4].copy_from_slice(&index.to_be_bytes()),
            Self::SourceName(address) => bytes[REQUEST_HEAD..REQUEST_HEAD + 20].copy_from_slice(&address.encode()),
            Self::Tracking | Self::SourceCount => {}
        }
        bytes
    }

    /// The fields of its reply.
    ///
    /// Errors: [`Fault::Another`] where one should go on waiting; the others end it.
    pub fn fields(self, sequence: u32, reply: &[u8]) -> Result<Fields<'_>, Fault> {
        let (command, expected, length) = self.numbers();
        let mut head = Fields(reply);
        let form = |_| Fault::Another;
        let version = head.u8().map_err(form)?;
        let kind = head.u8().map_err(form)?;
        head.skip(2).map_err(form)?;
        let of = head.u16().map_err(form)?;
        let number = head.u16().map_err(form)?;
        let status = head.u16().map_err(form)?;
        head.skip(6).map_err(form)?;
        let echoed = head.u32().map_err(form)?;
        head.skip(8).map_err(form)?;
        if (kind, of, echoed) != (REPLY, command, sequence) {
            return Err(Fault::Another);
        }
        if status != 0 {
            return Err(Fault::Refused(status));
        }
        if version != VERSION || number != expected || head.0.len() < length {
            return Err(Fault::Form);
        }
        Ok(head)
    }
}

impl Address {
    fn encode(self) -> [u8; 20] {
        let mut bytes = [0; 20];
        let family: u16 = match self {
            Self::None => 0,
            Self::Ip(IpAddr::V4(address)) => {
                bytes[..4].copy_from_slice(&address.octets());
                1
            }
            Self::Ip(IpAddr::V6(address)) => {
                bytes[..16].copy_from_slice(&address.octets());
                2
            }
            Self::Unresolved(number) => {
                bytes[..4].copy_from_slice(&number.to_be_bytes());
                3
            }
        };
        bytes[16..18].copy_from_slice(&family.to_be_bytes());
        bytes
    }
}

/// What is left of a reply.
#[derive(Debug)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Fault::Form)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), Fault> {
        self.0 = self.0.get(bytes..).ok_or(Fault::Form)?;
        Ok(())
    }

    fn u8(&mut self) -> Result<u8, Fault> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, Fault> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        self.take().map(u32::from_be_bytes)
    }

    /// `Float`: seven bits of exponent and 25 of coefficient, both signed; the value is `coefficient * 2^(exponent - 25)`.
    /// Taken by billions (or by thousands, for parts per million) and rounded; what doesn't fit is cut to what does.
    fn float(&mut self, scale: f64) -> Result<i64, Fault> {
        let bits = self.u32()?.cast_signed();
        let (exponent, coefficient) = (bits >> 25, bits << 7 >> 7);
        Ok((f64::from(coefficient) * f64::from(exponent - 25).exp2() * scale).round() as i64)
    }

    fn seconds(&mut self) -> Result<i64, Fault> {
        self.float(1e9)
    }

    fn ppm(&mut self) -> Result<i64, Fault> {
        self.float(1e3)
    }

    fn address(&mut self) -> Result<Address, Fault> {
        let bytes: [u8; 16] = self.take()?;
        let family = self.u16()?;
        self.skip(2)?;
        let [a, b, c, d, ..] = bytes;
        Ok(match family {
            0 => Address::None,
            1 => Address::Ip(Ipv4Addr::new(a, b, c, d).into()),
            2 => Address::Ip(Ipv6Addr::from(bytes).into()),
            3 => Address::Unresolved(u32::from_be_bytes([a, b, c, d])),
            _ => return Err(Fault::Form),
        })
    }

    /// Seconds and nanoseconds since 1970. The upper half of the seconds is `TV_NOHIGHSEC` where chronyd has none.
    fn time(&mut self) -> Result<Duration, Fault> {
        let (high, low, nanoseconds) = (self.u32()?, self.u32()?, self.u32()?);
        let high = if high == 0x7FFF_FFFF { 0 } else { high };
        let seconds = (u64::from(high) << 32) | u64::from(low);
        Ok(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanoseconds.into())))
    }
}

/// The reference. `now` is the time since 1970 by this machine's clock. Its source is known by address alone.
pub fn tracking(mut fields: Fields<'_>, now: Duration) -> Result<Tracking, Fault> {
    let reference = fields.u32()?;
    let address = fields.address()?;
    let stratum = fields.u16()?;
    let (synchronised, leap) = match fields.u16()? {
        0 => (true, Leap::None),
        1 => (true, Leap::Insert),
        2 => (true, Leap::Delete),
        3 => (false, Leap::None),
        _ => return Err(Fault::Form),
    };
    let updated = fields.time()?;
    let correction = fields.seconds()?;
    let (_last_offset, _rms_offset) = (fields.seconds()?, fields.seconds()?);
    Ok(Tracking {
        reference,
        source: match address {
            Address::Ip(address) => Text::format(format_args!("{address}")),
            // A reference clock goes by four letters.
            Address::None | Address::Unresolved(_) => letters(reference),
        },
        stratum: u8::try_from(stratum).map_err(|_| Fault::Form)?,
        synchronised,
        leap,
        since_update_s: now.saturating_sub(updated).as_secs(),
        // chronyd gives the correction that remains: positive when the clock is behind.
        offset_ns: correction.saturating_neg(),
        frequency_ppb: fields.ppm()?,
        residual_ppb: fields.ppm()?,
        skew_ppb: fields.ppm()?.unsigned_abs(),
        root_delay_ns: fields.seconds()?.unsigned_abs(),
        root_dispersion_ns: fields.seconds()?.unsigned_abs(),
    })
}

fn letters(reference: u32) -> Text<64> {
    let letters = reference.to_be_bytes();
    let shown = letters.iter().take_while(|byte| byte.is_ascii_graphic());
    let name: String = shown.map(|byte| char::from(*byte)).collect();
    name.as_str().into()
}

/// How many sources there are.
pub fn source_count(mut fields: Fields<'_>) -> Result<u32, Fault> {
    fields.u32()
}

/// A source, by its address alone, and that.
pub fn source(mut fields: Fields<'_>) -> Result<(Address, TimeSource), Fault> {
    let address = fields.address()?;
    let poll = fields.u16()?.cast_signed();
    let stratum = fields.u16()?;
    let state = match fields.u16()? {
        0 => TimeSourceState::Followed,
        1 => TimeSourceState::Unusable,
        2 => TimeSourceState::Wrong,
        3 => TimeSourceState::Unsteady,
        4 => TimeSourceState::Combined,
        5 => TimeSourceState::Spare,
        _ => return Err(Fault::Form),
    };
    let _mode = fields.u16()?;
    fields.skip(2)?;
    let reach = fields.u16()?;
    let (_since, _measured) = (fields.u32()?, fields.seconds()?);
    let source = TimeSource {
        state,
        stratum: u8::try_from(stratum).map_err(|_| Fault::Form)?,
        // A power of two; below a second it is told as one.
        poll_s: 1 << poll.clamp(0, 24),
        reach: u8::try_from(reach).map_err(|_| Fault::Form)?,
        offset_ns: fields.seconds()?,
        error_ns: fields.seconds()?.unsigned_abs(),
        ..TimeSource::default()
    };
    Ok((address, source))
}

/// The name of a source; `None` when there is nothing in it that can be shown.
pub fn name(fields: &Fields<'_>) -> Option<String> {
    let bytes = fields.0.split(|byte| *byte == 0).next()?;
    let name = str::from_utf8(bytes).ok()?;
    let shown = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
    shown.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reply(request: Request, sequence: u32, fields: &[u8]) -> Vec<u8> {
        let (command, number, _) = request.numbers();
        let mut bytes = vec![VERSION, REPLY, 0, 0];
        for half in [command, number, 0, 0, 0, 0] {
            bytes.extend(half.to_be_bytes());
        }
        bytes.extend(sequence.to_be_bytes());
        bytes.extend([0; 8]);
        bytes.extend(fields);
        bytes
    }

    #[test]
    fn a_request_has_its_numbers_and_the_length_of_its_reply() {
        let bytes = Request::Source(3).encode(0x0102_0304);
        assert_eq!(bytes.len(), REPLY_HEAD + 48);
        assert_eq!(bytes[..12], [6, 1, 0, 0, 0, 15, 0, 0, 1, 2, 3, 4]);
        assert_eq!(bytes[20..24], [0, 0, 0, 3]);
        let bytes = Request::SourceName(Address::Ip("192.0.2.1".parse().unwrap())).encode(1);
        assert_eq!(bytes.len(), REPLY_MAX);
        assert_eq!(bytes[20..24], [192, 0, 2, 1]);
        assert_eq!(bytes[36..38], [0, 1]);
    }

    #[test]
    fn a_reply_to_somebody_else_or_with_a_refusal_is_told_apart() {
        let request = Request::SourceCount;
        let good = reply(request, 7, &[0, 0, 0, 5]);
        assert_eq!(source_count(request.fields(7, &good).unwrap()), Ok(5));
        assert_eq!(request.fields(8, &good).unwrap_err(), Fault::Another);
        assert_eq!(Request::Tracking.fields(7, &good).unwrap_err(), Fault::Another);
        assert_eq!(request.fields(7, &good[..20]).unwrap_err(), Fault::Another);
        assert_eq!(request.fields(7, &good[..30]).unwrap_err(), Fault::Form);
        let mut refused = good.clone();
        refused[9] = 2;
        assert_eq!(request.fields(7, &refused).unwrap_err(), Fault::Refused(2));
        let mut of_another_version = good;
        of_another_version[0] = 7;
        assert_eq!(request.fields(7, &of_another_version).unwrap_err(), Fault::Form);
    }

    #[test]
    fn numbers_in_chronys_form() {
        for (bits, billionths) in [
            (0x0000_0000u32, 0i64),
            // 1.0: coefficient 2^23, exponent 2.
            (0x0480_0000, 1_000_000_000),
            // -1.0: coefficient -2^24, exponent 1.
            (0x0300_0000, -1_000_000_000),
            // 2^-10: coefficient 2^23, exponent -8.
            (0xF080_0000, 976_563),
            // The largest: 2^24 - 1 by 2^63.
            (0x7EFF_FFFF, i64::MAX),
            // The smallest above nothing.
            (0x8000_0001, 0),
        ] {
            let bytes = bits.to_be_bytes();
            assert_eq!(Fields(&bytes).seconds().unwrap(), billionths, "{bits:x}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..320), sequence: u32) {
            for request in [Request::Tracking, Request::SourceCount, Request::Source(0), Request::SourceName(Address::None)] {
                let _ = request.fields(sequence, &bytes);
                let fields = reply(request, sequence, &bytes);
                if let Ok(fields) = request.fields(sequence, &fields) {
                    let _ = name(&fields);
                    let _ = tracking(Fields(fields.0), Duration::MAX);
                    let _ = source(fields);
                }
            }
        }

        #[test]
        fn an_address_comes_back(v4: u32, v6: u128, number: u32) {
            for address in [
                Address::None,
                Address::Ip(Ipv4Addr::from(v4).into()),
                Address::Ip(Ipv6Addr::from(v6).into()),
                Address::Unresolved(number),
            ] {
                prop_assert_eq!(Fields(&address.encode()).address(), Ok(address));
            }
        }
    }
}
