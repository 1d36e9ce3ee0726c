//! `cargo image run`: the built image in a virtual machine, with everything it talks to, until Ctrl-C.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::dependencies::{self, Need};
use crate::error::{OnFile, Result};
use crate::flash;
use crate::loopback::{ACCOUNT, BUCKET, StoreOptions};
use crate::qemu::{Firmware, Machine};
use crate::trial::{CLIENT, Trial};
use crate::workspace::Workspace;

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The firmware.
    pub firmware: Firmware,
    /// Go on with the disks of the last time.
    pub keep: bool,
    /// Use KVM.
    pub kvm: bool,
    /// Whether missing packages may be installed on this machine.
    pub install: bool,
}

/// Runs the image until Ctrl-C, or until the machine is switched off.
///
/// # Errors
/// When there is no image, or a part of the trial can't be started.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    dependencies::ensure(workspace, &[Need::Run], options.install)?;
    flash::built(workspace)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).on("wait for", std::path::Path::new("Ctrl-C"))?;
    }
    let folder = workspace.run()?;
    eprintln!("Preparing disks, keys and servers in {}", folder.display());
    let trial = Trial::new(workspace, &folder, &StoreOptions::default())?;
    if options.keep && trial.drives().iter().all(|drive| drive.file.exists()) {
        trial.put_config()?;
    } else {
        trial.flash()?;
    }
    let mut hardware = trial.hardware("run", options.firmware);
    hardware.kvm = options.kvm;
    if options.kvm {
        hardware.processors = 2;
    }
    let mut machine = Machine::start(&hardware)?;
    println!("{}", guide(&trial, &machine));

    let admin = trial.admin(&machine);
    let mut ready = false;
    while machine.is_on() && !stop.load(Ordering::Relaxed) {
        if !ready && admin.run("true").is_ok() {
            ready = true;
            println!(
                "It answers, {} s after it was switched on. Ctrl-C cuts its power.",
                machine.age().as_secs()
            );
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    let picture = folder.join("screen.png");
    if machine.is_on() && machine.screenshot(&picture).is_ok() {
        eprintln!("\nStopped. The last picture of its screen is {}", picture.display());
    } else {
        eprintln!("\nThe machine is off.");
    }
    eprintln!("Go on with the same disks: cargo image run --keep");
    Ok(())
}

fn guide(trial: &Trial, machine: &Machine) -> String {
    let folder = trial.folder.display();
    let port = machine.ssh_port();
    let admin = trial.admin(machine);
    let client = trial.client(machine);
    format!(
        "The appliance starts: half a minute with KVM, one to two without. Its serial line is in {folder}/run.serial.log

Look at it:
  {admin_shell} admin@127.0.0.1 strongroom status

Back up to it with Borg, as the client {CLIENT}:
  export BORG_RSH='{client_shell}'
  export BORG_REPO=ssh://borgbackup@127.0.0.1:{port}/mnt/raid/{CLIENT}_repository
  borg init --encryption=none --append-only
  borg create --stats --compression auto,zlib ::first /usr/share/doc
  borg list

Copy that off-site, and look at what arrived:
  {admin_shell} admin@127.0.0.1 strongroom push {CLIENT}
  find {objects} -type f        (bucket {BUCKET}; open it with: gpg --homedir {gnupg} --decrypt FILE)

Watch what it reports:
  mosquitto_sub -h 127.0.0.1 -p {mqtt} -u {ACCOUNT} -P {password} -v -t '#'

Its configuration is {config}; change it and start again with --keep.
",
        admin_shell = admin.shell(),
        client_shell = client.shell(),
        objects = trial.store.objects.display(),
        gnupg = trial.gnupg().display(),
        mqtt = trial.broker.port,
        password = trial.broker.password,
        config = trial.config_file().display(),
    )
}
