//! Lets the objects come, change and go with the snapshot. What is to be told is decided by comparing what was shown with
//! what is to be ([`differences`], [`changed`]); nothing is sent for what is the same.

use super::appliance;
use super::desk::Desk;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use strongroom_model::bus;
use strongroom_model::job::Job;
use strongroom_model::status::{self, Status};
use zbus::fdo::Properties;
use zbus::object_server::Interface;
use zbus::{Connection, OwnedVariant, Variant};

/// An object that shows a part of the snapshot.
pub struct Object<P> {
    pub(super) desk: Arc<Desk>,
    pub(super) part: Slot<P>,
}

/// The part of the snapshot that an object shows now. Methods may be at work while it changes.
pub struct Slot<P>(Mutex<Arc<P>>);

impl<P> Slot<P> {
    /// What is shown.
    pub fn get(&self) -> Arc<P> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn put(&self, part: Arc<P>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = part;
    }
}

/// Parts by the paths of their objects, which share them.
type Parts<P> = BTreeMap<String, Arc<P>>;

/// What all objects are to show.
#[derive(Clone, Default, PartialEq)]
pub struct View {
    whole: Arc<Status>,
    appliance: Parts<appliance::Part>,
    clock: Parts<status::Clock>,
    array: Parts<status::Array>,
    disks: Parts<status::Disk>,
    clients: Parts<status::Client>,
    targets: Parts<status::Target>,
    jobs: Parts<Job>,
}

impl View {
    /// The objects of a snapshot.
    pub fn new(status: &Arc<Status>, jobs: &[Job]) -> Self {
        let mut view = Self {
            whole: status.clone(),
            appliance: Parts::from([(bus::ROOT.into(), Arc::new(appliance::Part::new(status)))]),
            clock: Parts::from([(bus::CLOCK.into(), Arc::new(status.clock.clone()))]),
            array: Parts::from([(bus::ARRAY.into(), Arc::new(status.array.clone()))]),
            disks: status
                .disks
                .iter()
                .map(|disk| (bus::disk(&disk.serial), Arc::new(disk.clone())))
                .collect(),
            jobs: jobs
                .iter()
                .map(|job| (bus::job(&job.id), Arc::new(job.clone())))
                .collect(),
            ..Self::default()
        };
        for client in &status.clients {
            let targets = client.targets.iter();
            view.targets
                .extend(targets.map(|target| (bus::target(&client.name, &target.name), Arc::new(target.clone()))));
            let mut client = client.clone();
            // They are objects of their own.
            client.targets.clear();
            view.clients.insert(bus::client(&client.name), Arc::new(client));
        }
        view
    }
}

/// How one set of objects becomes another.
#[derive(Debug, PartialEq)]
enum Difference<'a, P> {
    Gone(&'a str),
    Come(&'a str, &'a P),
    Changed(&'a str, &'a P),
}

/// What has to be done, those that go first.
fn differences<'a, P: PartialEq>(old: &'a BTreeMap<String, P>, new: &'a BTreeMap<String, P>) -> Vec<Difference<'a, P>> {
    let gone = old.keys().filter(|path| !new.contains_key(*path));
    let gone = gone.map(|path| Difference::Gone(path.as_str()));
    let others = new.iter().filter_map(|(path, part)| match old.get(path) {
        None => Some(Difference::Come(path, part)),
        Some(before) if before != part => Some(Difference::Changed(path, part)),
        Some(_) => None,
    });
    gone.chain(others).collect()
}

/// The properties that have another value than before, with their values.
fn changed<'a>(
    before: &HashMap<String, OwnedVariant>,
    after: &'a HashMap<String, OwnedVariant>,
) -> HashMap<&'a str, &'a OwnedVariant> {
    let new = after.iter().filter(|(name, value)| before.get(*name) != Some(*value));
    new.map(|(name, value)| (name.as_str(), value)).collect()
}

/// The objects on the bus.
pub struct Tree {
    bus: Connection,
    desk: Arc<Desk>,
    shown: View,
}

impl Tree {
    /// Without objects.
    pub fn new(bus: Connection, desk: Arc<Desk>) -> Self {
        Self {
            bus,
            desk,
            shown: View::default(),
        }
    }

    /// Makes the objects show this, and tells whoever listens what changed.
    pub async fn show(&mut self, new: View) -> zbus::Result<()> {
        let old = std::mem::replace(&mut self.shown, new);
        let new = &self.shown;
        self.update(&old.appliance, &new.appliance).await?;
        self.update(&old.clock, &new.clock).await?;
        self.update(&old.array, &new.array).await?;
        self.update(&old.disks, &new.disks).await?;
        self.update(&old.clients, &new.clients).await?;
        self.update(&old.targets, &new.targets).await?;
        self.update(&old.jobs, &new.jobs).await?;
        if old.whole != new.whole {
            let face = self
                .bus
                .object_server()
                .interface::<_, appliance::Appliance>(bus::ROOT)
                .await?;
            // It is long, and most who listen read the properties that they want: only that it changed is told.
            face.get().await.status_invalidate(face.signal_emitter()).await?;
        }
        let names = new.whole.clients.iter().map(|client| client.name.clone());
        self.desk.shown.send_replace(names.collect());
        Ok(())
    }

    async fn update<P: PartialEq>(&self, old: &Parts<P>, new: &Parts<P>) -> zbus::Result<()>
    where
        Object<P>: Interface,
    {
        let server = self.bus.object_server();
        for difference in differences(old, new) {
            match difference {
                Difference::Gone(path) => {
                    server.remove::<Object<P>, _>(path).await?;
                }
                Difference::Come(path, part) => {
                    let object = Object {
                        desk: self.desk.clone(),
                        part: Slot(Mutex::new(part.clone())),
                    };
                    server.at(path, object).await?;
                }
                Difference::Changed(path, part) => {
                    let face = server.interface::<_, Object<P>>(path).await?;
                    let emitter = face.signal_emitter();
                    let object = face.get().await;
                    let before = object.get_all(server, &self.bus, None, emitter).await?;
                    object.part.put(part.clone());
                    let after = object.get_all(server, &self.bus, None, emitter).await?;
                    let changed = changed(&before, &after);
                    if changed.is_empty() {
                        continue;
                    }
                    let changed = changed
                        .into_iter()
                        .map(|(name, value)| Ok((name, Variant::try_from(value)?)))
                        .collect::<zbus::Result<_>>()?;
                    Properties::properties_changed(emitter, Object::<P>::name(), changed, Cow::Borrowed(&[])).await?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use strongroom_model::name::{ClientName, TargetName};

    fn status(clients: &[(&str, u64)]) -> Arc<Status> {
        let mut status = Status::default();
        for (name, size_bytes) in clients {
            let mut client = status::Client {
                name: ClientName::new(name).unwrap(),
                size_bytes: *size_bytes,
                ..Default::default()
            };
            let name = TargetName::new("oracle").unwrap();
            client
                .targets
                .push(status::Target {
                    name,
                    ..Default::default()
                })
                .unwrap();
            status.clients.push(client).unwrap();
        }
        Arc::new(status)
    }

    #[test]
    fn objects_come_change_and_go_with_what_they_show() {
        let old = View::new(&status(&[("asus", 1), ("laptop", 1)]), &[]);
        let new = View::new(&status(&[("attic", 1), ("laptop", 2)]), &[]);
        let clients = differences(&old.clients, &new.clients);
        let at = |name: &str| bus::client(&ClientName::new(name).unwrap());
        let (asus, attic, laptop) = (at("asus"), at("attic"), at("laptop"));
        assert_eq!(
            clients,
            [
                Difference::Gone(&asus),
                Difference::Come(&attic, &new.clients[&attic]),
                Difference::Changed(&laptop, &new.clients[&laptop]),
            ]
        );
        let targets = differences(&old.targets, &new.targets);
        assert_eq!(targets.len(), 2, "that of laptop is as it was: {targets:?}");
        assert!(differences(&new.disks, &new.disks).is_empty());
    }

    #[test]
    fn only_what_has_another_value_is_told() {
        let properties = |pairs: &[(&str, u64)]| -> HashMap<String, OwnedVariant> {
            pairs
                .iter()
                .map(|(name, value)| (name.to_string(), (*value).into()))
                .collect()
        };
        let (before, after) = (properties(&[("A", 1), ("B", 2)]), properties(&[("A", 1), ("B", 3)]));
        let told = changed(&before, &after);
        assert_eq!(told.keys().copied().collect::<Vec<_>>(), ["B"]);
        assert!(changed(&after, &after).is_empty());
    }

    proptest! {
        #[test]
        fn the_differences_make_the_new_of_the_old(
            old in proptest::collection::btree_map("[a-d]", 0u8..3, 0..4),
            new in proptest::collection::btree_map("[a-d]", 0u8..3, 0..4),
        ) {
            let mut made = old.clone();
            for difference in differences(&old, &new) {
                match difference {
                    Difference::Gone(path) => prop_assert!(made.remove(path).is_some()),
                    Difference::Come(path, part) => prop_assert_eq!(made.insert(path.into(), *part), None),
                    Difference::Changed(path, part) => {
                        let before = made.insert(path.into(), *part);
                        prop_assert!(before.is_some_and(|before| before != *part));
                    }
                }
            }
            prop_assert_eq!(made, new);
        }
    }
}
