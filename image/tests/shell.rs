//! What little shell there is passes shellcheck.

use std::path::Path;
use std::process::Command;

#[test]
fn shell_passes_shellcheck() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let output = Command::new("shellcheck")
        .current_dir(root)
        .args([
            ".ci/run",
            "image/assemble.sh",
            "image/debian/initramfs.sh",
            "image/buildroot/initramfs.sh",
            "image/buildroot/toolchain.sh",
            "board/x86_64/buildroot/initramfs/init",
            "board/x86_64/buildroot/initramfs/scripts/functions",
            "rootfs-overlay/etc/initramfs-tools/hooks/appliance",
            "rootfs-overlay/etc/initramfs-tools/scripts/local-top/disk",
            "rootfs-overlay/etc/initramfs-tools/scripts/local-bottom/state",
            "rootfs-overlay/etc/profile.d/strongroom.sh",
        ])
        .output()
        .expect("missing `shellcheck`: run `cargo image test`, which installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
