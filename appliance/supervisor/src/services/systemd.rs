//! systemd over D-Bus (org.freedesktop.systemd1(5)): starting units and reading their states.

use zbus::Connection;

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
    fn reload(&self) -> zbus::Result<()>;
    #[allow(clippy::type_complexity)]
    fn list_units_by_names(&self, names: &[&str]) -> zbus::Result<Vec<UnitRow>>;
    fn list_units_filtered(&self, states: &[&str]) -> zbus::Result<Vec<UnitRow>>;
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

    /// Restarts a unit; returns once the job is queued.
    pub async fn restart(&self, unit: &str) -> Result<(), SystemdError> {
        self.manager
            .restart_unit(unit, "replace")
            .await
            .map(drop)
            .map_err(error("restart", unit))
    }

    /// Reads all unit files and drop-ins again.
    pub async fn reload(&self) -> Result<(), SystemdError> {
        self.manager.reload().await.map_err(error("reload", "its units"))
    }

    /// States of the named units, in the order of `names`.
    pub async fn states(&self, names: &[&str]) -> Result<Vec<UnitState>, SystemdError> {
        let rows = self
            .manager
            .list_units_by_names(names)
            .await
            .map_err(error("tell the state of", "units"))?;
        Ok(names
            .iter()
            .map(|name| {
                let row = rows.iter().find(|row| row.0 == *name);
                row.map(|row| UnitState {
                    active: row.3.clone(),
                    sub: row.4.clone(),
                })
                .unwrap_or_default()
            })
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

fn error(verb: &'static str, unit: &str) -> impl FnOnce(zbus::Error) -> SystemdError {
    let unit = unit.to_string();
    move |source| SystemdError { verb, unit, source }
}
