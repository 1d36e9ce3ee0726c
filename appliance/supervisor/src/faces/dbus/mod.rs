//! The D-Bus face, `org.strongroom.Appliance1`: what there is as objects with properties, all from the one snapshot, and
//! methods on them that start jobs. docs/dbus.md tells what each is for; who may call what is decided by the bus's policy
//! (`org.strongroom.Appliance1.conf`).
//!
//! A module for each kind of object; [`tree`] lets them come, change and go; [`desk`] is what their methods work with.

mod appliance;
mod array;
mod client;
mod clock;
mod desk;
mod disk;
mod inputs;
mod job;
mod target;
mod tree;

use crate::paths::Paths;
use crate::report::Command;
use crate::services::systemd::Systemd;
use desk::Desk;
use std::sync::Arc;
use std::time::Duration;
use strongroom_model::bus;
use strongroom_model::job::Job;
use strongroom_model::status::Status;
use tokio::sync::{mpsc, watch};
use tree::{Tree, View};
use zbus::Connection;
use zbus::fdo::ObjectManager;

/// Least time between two announcements of a change.
const ANNOUNCE_PERIOD: Duration = Duration::from_millis(500);

/// What the face needs of the daemon.
pub struct Needs {
    /// Where everything lies.
    pub paths: Paths,
    /// The snapshot.
    pub status: watch::Receiver<Arc<Status>>,
    /// The jobs.
    pub jobs: watch::Receiver<Arc<Vec<Job>>>,
    /// Where commands go.
    pub commands: mpsc::Sender<Command>,
    /// The service manager.
    pub systemd: Systemd,
}

/// The face, while it is served.
pub struct Served {
    tree: Tree,
    status: watch::Receiver<Arc<Status>>,
    jobs: watch::Receiver<Arc<Vec<Job>>>,
}

/// Serves the face on `bus` and takes the bus name.
pub async fn serve(bus: &Connection, needs: Needs) -> zbus::Result<Served> {
    let (status, jobs) = (needs.status.clone(), needs.jobs.clone());
    let mut tree = Tree::new(bus.clone(), Arc::new(Desk::new(needs)));
    // Those that are there from the beginning need no announcement.
    let view = View::new(&status.borrow(), &jobs.borrow());
    tree.show(view).await?;
    bus.object_server().at(bus::ROOT, ObjectManager).await?;
    bus.request_name(bus::NAME).await?;
    Ok(Served { tree, status, jobs })
}

/// Announces changes for ever.
pub async fn announce(served: Served) -> zbus::Result<()> {
    let Served {
        mut tree,
        mut status,
        mut jobs,
    } = served;
    loop {
        let changed = tokio::select! {
            changed = status.changed() => changed,
            changed = jobs.changed() => changed,
        };
        if changed.is_err() {
            return Ok(());
        }
        let whole = status.borrow_and_update().clone();
        let running = jobs.borrow_and_update().clone();
        tree.show(View::new(&whole, &running)).await?;
        tokio::time::sleep(ANNOUNCE_PERIOD).await;
    }
}
