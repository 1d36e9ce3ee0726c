//! systemd over D-Bus (org.freedesktop.systemd1(5)): starting units and reading their states.

use std::collections::BTreeMap;
use std::fmt;
use strongroom_model::job::Seen;
use tokio::sync::mpsc;
use zbus::export::ordered_stream::OrderedStreamExt;
use zbus::fdo::{PropertiesChangedStream, PropertiesProxy};
use zbus::names::InterfaceName;
use zbus::{Connection, OwnedVariant, Variant};

/// What was wrong with a call.
#[derive(Debug, thiserror::Error)]
#[error("systemd refused to {verb} {unit}: {source}")]
pub struct SystemdError {
    verb: &'static str,
    unit: String,
    source: zbus::Error,
}

/// State of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitState {
    /// `active`, `activating`, `inactive`, `failed`, …
    pub active: String,
    /// The finer state, such as `running` or `auto-restart`.
    pub sub: String,
}

impl UnitState {
    /// Whether the unit is doing its work right now.
    pub fn is_running(&self) -> bool {
        (self.active == "activating" && !self.sub.starts_with("auto-restart")) || self.sub == "running"
    }

    /// Whether it has failed for good.
    pub fn is_failed(&self) -> bool {
        self.active == "failed"
    }
}

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<zbus::OwnedObjectPath>;
    fn restart_unit(&self, name: &str, mode: &str) -> zbus::Result<zbus::OwnedObjectPath>;
    fn load_unit(&self, name: &str) -> zbus::Result<zbus::OwnedObjectPath>;
    fn reload(&self) -> zbus::Result<()>;
    #[allow(clippy::type_complexity)]
    fn list_units_by_names(&self, names: &[&str]) -> zbus::Result<Vec<UnitRow>>;
    fn list_units_filtered(&self, states: &[&str]) -> zbus::Result<Vec<UnitRow>>;
    fn list_units_by_patterns(&self, states: &[&str], patterns: &[&str]) -> zbus::Result<Vec<UnitRow>>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<zbus::OwnedObjectPath>;
    fn ref_unit(&self, name: &str) -> zbus::Result<()>;
    fn unref_unit(&self, name: &str) -> zbus::Result<()>;
    fn subscribe(&self) -> zbus::Result<()>;
    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: &[(&str, Variant<'_>)],
        others: &[(&str, Vec<(&str, Variant<'_>)>)],
    ) -> zbus::Result<zbus::OwnedObjectPath>;
    #[zbus(signal)]
    fn job_new(&self, id: u32, job: zbus::OwnedObjectPath, unit: String) -> zbus::Result<()>;
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: zbus::OwnedObjectPath, unit: String, result: String) -> zbus::Result<()>;
    #[zbus(signal)]
    fn unit_removed(&self, unit: String, object: zbus::OwnedObjectPath) -> zbus::Result<()>;
}

const UNIT: InterfaceName<'static> = InterfaceName::from_static_str_unchecked("org.freedesktop.systemd1.Unit");
const SERVICE: InterfaceName<'static> = InterfaceName::from_static_str_unchecked("org.freedesktop.systemd1.Service");

const TIMER: InterfaceName<'static> = InterfaceName::from_static_str_unchecked("org.freedesktop.systemd1.Timer");

/// How a service's main process came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this code.
    Exited(u8),
    /// By this signal.
    Killed(i32),
    /// For want of memory.
    OutOfMemory,
    /// It was never started.
    NeverBegan,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "code {code}"),
            Self::Killed(signal) => write!(f, "ended by signal {signal}"),
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::NeverBegan => f.write_str("it never began"),
        }
    }
}

/// A service's end as systemd tells it: ExecMainCode, ExecMainStatus (waitid(2), si_code and si_status) and Result.
fn ended(code: i32, status: i32, result: &str) -> Ended {
    const EXITED: i32 = 1;
    match code {
        _ if result == "oom-kill" => Ended::OutOfMemory,
        0 => Ended::NeverBegan,
        EXITED => Ended::Exited(status.clamp(0, 255) as u8),
        _ => Ended::Killed(status),
    }
}

/// One service that is being watched.
pub struct Watched {
    unit: String,
    properties: PropertiesProxy<'static>,
    changes: PropertiesChangedStream,
}

impl Watched {
    /// Waits until systemd tells of a change.
    pub async fn changed(&mut self) {
        if self.changes.next().await.is_none() {
            // The bus is gone: the next look will say so.
            std::future::pending::<()>().await;
        }
    }

    /// How the service's main process ended; `None` while it runs, or is about to.
    pub async fn ended(&self) -> Result<Option<Ended>, SystemdError> {
        // In this order: once the job is done, the state is that of a unit that was started.
        let (job, _): (u32, zbus::OwnedObjectPath) = self.get(UNIT, "Job").await?;
        if job != 0 {
            return Ok(None);
        }
        let state: String = self.get(UNIT, "ActiveState").await?;
        if matches!(state.as_str(), "active" | "activating" | "reloading") {
            return Ok(None);
        }
        let code = self.get(SERVICE, "ExecMainCode").await?;
        let status = self.get(SERVICE, "ExecMainStatus").await?;
        let result: String = self.get(SERVICE, "Result").await?;
        // Being stopped, with the process still there.
        if code == 0 && state == "deactivating" {
            return Ok(None);
        }
        Ok(Some(ended(code, status, &result)))
    }

    async fn get<T>(&self, interface: InterfaceName<'static>, name: &str) -> Result<T, SystemdError>
    where
        T: TryFrom<OwnedVariant>,
        T::Error: Into<zbus::Error>,
    {
        let value = self.properties.get(interface, name).await.map_err(zbus::Error::from);
        value
            .and_then(|value| T::try_from(value).map_err(Into::into))
            .map_err(error("tell the state of", &self.unit))
    }
}

/// What systemd is asked to do with units: begun and done. Its word for that is job too.
pub struct Queue(mpsc::UnboundedReceiver<Queued>);

/// What is heard of [`Queue`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Queued {
    /// Something is to be done with this unit.
    Begun(String),
    /// It is done with this unit, with this result: `done`, `canceled`, `failed`, …
    Done(String, String),
    /// This unit is known no longer. Of one that lives only while it runs, that is its end.
    Gone(String),
}

impl Queue {
    /// Waits for the next; `None`: the bus is gone.
    pub async fn next(&mut self) -> Option<Queued> {
        self.0.recv().await
    }
}

/// Everything that systemd tells of all units.
struct Signals {
    begun: JobNewStream,
    done: JobRemovedStream,
    gone: UnitRemovedStream,
}

impl Signals {
    async fn next(&mut self) -> Option<Queued> {
        tokio::select! {
            // What begins is heard before its end, where both wait.
            biased;
            begun = self.begun.next() => {
                let begun = begun?;
                let begun = begun.args().ok()?;
                Some(Queued::Begun(begun.unit))
            }
            done = self.done.next() => {
                let done = done?;
                let done = done.args().ok()?;
                Some(Queued::Done(done.unit, done.result))
            }
            gone = self.gone.next() => {
                let gone = gone?;
                let gone = gone.args().ok()?;
                Some(Queued::Gone(gone.unit))
            }
        }
    }
}

/// What a running service is using.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Since when it runs, Unix seconds.
    pub since: Option<u64>,
    /// Bytes that it read from disks.
    pub read_bytes: Option<u64>,
    /// Bytes that it wrote to disks.
    pub written_bytes: Option<u64>,
}

/// name, description, load, active, sub, followed, path, job id, job type, job path
type UnitRow = (
    String,
    String,
    String,
    String,
    String,
    String,
    zbus::OwnedObjectPath,
    u32,
    String,
    zbus::OwnedObjectPath,
);

/// The system's service manager.
#[derive(Clone)]
pub struct Systemd {
    manager: ManagerProxy<'static>,
}

impl Systemd {
    /// Connects to it.
    pub async fn new(bus: &Connection) -> zbus::Result<Self> {
        Ok(Self {
            manager: ManagerProxy::new(bus).await?,
        })
    }

    /// Starts a unit; returns once the job is queued.
    pub async fn start(&self, unit: &str) -> Result<(), SystemdError> {
        self.manager
            .start_unit(unit, "replace")
            .await
            .map(drop)
            .map_err(error("start", unit))
    }

    /// Has systemd tell of changes, until this connection ends.
    pub async fn subscribe(&self) -> zbus::Result<()> {
        self.manager.subscribe().await
    }

    /// Whether it can be reached.
    pub async fn answers(&self) -> bool {
        self.manager.list_units_by_names(&[]).await.is_ok()
    }

    /// Starts a unit that exists only while it runs; returns once the job is queued.
    pub async fn start_transient(&self, unit: &str, properties: &[(&str, Variant<'_>)]) -> Result<(), SystemdError> {
        self.manager
            .start_transient_unit(unit, "fail", properties, &[])
            .await
            .map(drop)
            .map_err(error("start", unit))
    }

    /// Stops a unit; returns once the job is queued.
    pub async fn stop(&self, unit: &str) -> Result<(), SystemdError> {
        self.manager
            .stop_unit(unit, "replace")
            .await
            .map(drop)
            .map_err(error("stop", unit))
    }

    /// Begins to hear what is done with the units whose names start so.
    ///
    /// They are taken from the bus at once, whatever whoever hears of them is doing: of the signals that wait there, there is
    /// room for some tens, and where there is none, answers to calls don't come through either.
    pub async fn queue(&self, start: &'static str) -> zbus::Result<Queue> {
        let mut signals = Signals {
            begun: self.manager.receive_job_new().await?,
            done: self.manager.receive_job_removed().await?,
            gone: self.manager.receive_unit_removed().await?,
        };
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(queued) = signals.next().await {
                let (Queued::Begun(unit) | Queued::Done(unit, _) | Queued::Gone(unit)) = &queued;
                if unit.starts_with(start) && sender.send(queued).is_err() {
                    return;
                }
            }
        });
        match self.subscribe().await {
            // Since before this began anew.
            Err(zbus::Error::MethodError(name, ..))
                if name.as_str() == "org.freedesktop.systemd1.AlreadySubscribed" => {}
            other => other?,
        }
        Ok(Queue(receiver))
    }

    /// Keeps a unit known to systemd once it has ended, until [`Self::unref`] as often, or the end of this connection.
    pub async fn pin(&self, unit: &str) -> Result<(), SystemdError> {
        self.manager.ref_unit(unit).await.map_err(error("keep", unit))
    }

    /// What a service runs, or ran last.
    pub async fn seen(&self, unit: &str) -> Result<Seen, SystemdError> {
        let read = async {
            let object = self.manager.load_unit(unit).await?;
            let properties = self.properties(&object).await?;
            let text = async |interface, name| -> zbus::Result<String> {
                String::try_from(properties.get(interface, name).await?)
            };
            let seconds = async |interface, name| -> zbus::Result<u64> {
                Ok(u64::try_from(properties.get(interface, name).await?)? / 1_000_000)
            };
            let invocation = Vec::<u8>::try_from(properties.get(UNIT, "InvocationID").await?)?;
            let state = UnitState {
                active: text(UNIT, "ActiveState").await?,
                sub: text(UNIT, "SubState").await?,
            };
            Ok(Seen {
                invocation: invocation.iter().map(|byte| format!("{byte:02x}")).collect(),
                running: state.is_running() || state.active == "deactivating",
                started: seconds(UNIT, "InactiveExitTimestamp").await?,
                ended: seconds(SERVICE, "ExecMainExitTimestamp").await?,
                result: text(SERVICE, "Result").await?,
            })
        };
        read.await.map_err(error("tell the state of", unit))
    }

    /// Lets go of a unit that was started with AddRef, or pinned.
    pub async fn unref(&self, unit: &str) -> Result<(), SystemdError> {
        self.manager.unref_unit(unit).await.map_err(error("let go of", unit))
    }

    /// Names of the units that are there and match a pattern.
    pub async fn matching(&self, pattern: &str) -> Result<Vec<String>, SystemdError> {
        let rows = self
            .manager
            .list_units_by_patterns(&[], &[pattern])
            .await
            .map_err(error("list", pattern))?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }

    /// Begins to watch a unit, which need not be there yet.
    pub async fn watch(&self, unit: &str, object: &str) -> Result<Watched, SystemdError> {
        let watched = async {
            let properties = self.properties(object).await?;
            let changes = properties.receive_properties_changed().await?;
            Ok(Watched {
                unit: unit.to_string(),
                properties,
                changes,
            })
        };
        watched.await.map_err(error("watch", unit))
    }

    /// What a service is using.
    pub async fn usage(&self, unit: &str, object: &str) -> Result<Usage, SystemdError> {
        let read = async {
            let properties = self.properties(object).await?;
            let number = async |interface, name| -> zbus::Result<Option<u64>> {
                let number = u64::try_from(properties.get(interface, name).await?)?;
                // systemd's word for unknown.
                Ok((number != u64::MAX).then_some(number))
            };
            Ok(Usage {
                since: number(UNIT, "ActiveEnterTimestamp").await?.map(|us| us / 1_000_000),
                read_bytes: number(SERVICE, "IOReadBytes").await?,
                written_bytes: number(SERVICE, "IOWriteBytes").await?,
            })
        };
        read.await.map_err(error("tell the use of", unit))
    }

    async fn properties(&self, object: &str) -> zbus::Result<PropertiesProxy<'static>> {
        PropertiesProxy::builder(self.manager.inner().connection())
            .destination("org.freedesktop.systemd1")
            .path(object.to_string())
            .build()
            .await
    }

    /// Restarts a unit, as its file and drop-ins say now; returns once the job is queued. Only where systemd knows an older form of them does it read
    /// all units again: that holds up everything else, seconds long while the appliance starts.
    pub async fn restart_anew(&self, unit: &str) -> Result<(), SystemdError> {
        let stale = async {
            let object = self.manager.load_unit(unit).await?;
            let properties = self.properties(&object).await?;
            bool::try_from(properties.get(UNIT, "NeedDaemonReload").await?)
        };
        if stale.await.map_err(error("load", unit))? {
            self.manager.reload().await.map_err(error("reload", "its units"))?;
        }
        self.manager
            .restart_unit(unit, "replace")
            .await
            .map(drop)
            .map_err(error("restart", unit))
    }

    /// When a calendar timer elapses next, Unix seconds; none while it is not running.
    pub async fn next_elapse(&self, timer: &str) -> Result<Option<u64>, SystemdError> {
        let read = async {
            let object = self.manager.load_unit(timer).await?;
            let properties = self.properties(&object).await?;
            let us = u64::try_from(properties.get(TIMER, "NextElapseUSecRealtime").await?)?;
            // systemd's words for never.
            Ok((us != 0 && us != u64::MAX).then_some(us / 1_000_000))
        };
        read.await.map_err(error("tell the next time of", timer))
    }

    /// When a timer elapsed last, in Unix seconds; `None` when it never did.
    pub async fn last_elapse(&self, timer: &str) -> Result<Option<u64>, SystemdError> {
        let read = async {
            let object = self.manager.load_unit(timer).await?;
            let properties = self.properties(&object).await?;
            let us = u64::try_from(properties.get(TIMER, "LastTriggerUSec").await?)?;
            Ok((us != 0 && us != u64::MAX).then_some(us / 1_000_000))
        };
        read.await.map_err(error("tell the last time of", timer))
    }

    /// States of the units that systemd has in mind and that match one of these patterns, by name. Unlike [`Self::states`] it
    /// makes systemd read nothing of those that did nothing lately, which are most.
    pub async fn in_mind(&self, patterns: &[&str]) -> Result<BTreeMap<String, UnitState>, SystemdError> {
        let rows = self
            .manager
            .list_units_by_patterns(&[], patterns)
            .await
            .map_err(error("tell the state of", "units"))?;
        Ok(by_name(rows))
    }

    /// States of the named units, in the order of `names`.
    pub async fn states(&self, names: &[&str]) -> Result<Vec<UnitState>, SystemdError> {
        let rows = self
            .manager
            .list_units_by_names(names)
            .await
            .map_err(error("tell the state of", "units"))?;
        let states = by_name(rows);
        Ok(names
            .iter()
            .map(|name| states.get(*name).cloned().unwrap_or_default())
            .collect())
    }

    /// Names of all units that have failed.
    pub async fn failed(&self) -> Result<Vec<String>, SystemdError> {
        let rows = self
            .manager
            .list_units_filtered(&["failed"])
            .await
            .map_err(error("list", "failed units"))?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }
}

fn by_name(rows: Vec<UnitRow>) -> BTreeMap<String, UnitState> {
    let states = rows.into_iter().map(|row| {
        let state = UnitState {
            active: row.3,
            sub: row.4,
        };
        (row.0, state)
    });
    states.collect()
}

fn error(verb: &'static str, unit: &str) -> impl FnOnce(zbus::Error) -> SystemdError {
    let unit = unit.to_string();
    move |source| SystemdError { verb, unit, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_as_systemd_tells_them() {
        assert_eq!(ended(1, 2, "exit-code"), Ended::Exited(2));
        assert_eq!(ended(1, 0, "success"), Ended::Exited(0));
        assert_eq!(ended(1, 226, "exit-code"), Ended::Exited(226));
        assert_eq!(ended(2, 15, "success"), Ended::Killed(15));
        assert_eq!(ended(3, 31, "core-dump"), Ended::Killed(31));
        assert_eq!(ended(2, 9, "oom-kill"), Ended::OutOfMemory);
        assert_eq!(ended(0, 0, "resources"), Ended::NeverBegan);
    }
}
