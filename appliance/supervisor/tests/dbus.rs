//! The D-Bus face on a real bus: what objects there are, what is told of changes, what methods do, and who may call them. The
//! bus is a dbus-daemon of the test's own, with the policy of the image.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The helpers are tests too: they may fail loudly.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;
use strongroom_model::bus;
use strongroom_model::job::{Job, State};
use strongroom_model::name::{ClientName, TargetName};
use strongroom_model::status::{ArrayState, Client, JobKind, Status, Target};
use strongroom_supervisor::faces::dbus::{self, Needs};
use strongroom_supervisor::paths::Paths;
use strongroom_supervisor::report::Command as Order;
use strongroom_supervisor::services::systemd::Systemd;
use tokio::sync::{mpsc, watch};
use zbus::export::ordered_stream::OrderedStreamExt;
use zbus::fdo::ObjectManagerProxy;
use zbus::{Connection, MessageStream, OwnedVariant, Variant};

/// Nothing that is waited for takes as long; what does is missing.
const PATIENCE: Duration = Duration::from_secs(60);
/// The groups of the policy, and those that stand for them, since this machine does not know them: name and number, as every
/// Debian has them.
const GROUPS: [(&str, &str, u32); 2] = [("strongroom-admin", "games", 60), ("strongroom-status", "users", 100)];

/// A dbus-daemon, ended when dropped.
struct Daemon {
    process: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Daemon {
    /// With the rules that any system bus has (system.conf), and the image's.
    fn new(own_rules: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Others than this account are to reach it.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(folder.path(), mode).unwrap();
        let own = folder.path().join("own.conf");
        fs::write(&own, own_rules).unwrap();
        let config = folder.path().join("bus.conf");
        let text = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n\
             <busconfig><listen>unix:path={}</listen><auth>EXTERNAL</auth>\n\
             <policy context=\"default\"><allow user=\"*\"/><deny own=\"*\"/><deny send_type=\"method_call\"/>\n\
             <allow send_type=\"signal\"/><allow send_requested_reply=\"true\" send_type=\"method_return\"/>\n\
             <allow send_requested_reply=\"true\" send_type=\"error\"/><allow receive_type=\"method_call\"/>\n\
             <allow receive_type=\"method_return\"/><allow receive_type=\"error\"/><allow receive_type=\"signal\"/>\n\
             <allow send_destination=\"org.freedesktop.DBus\"/></policy>\n\
             <include>{}</include></busconfig>\n",
            folder.path().join("bus").display(),
            own.display()
        );
        fs::write(&config, text).unwrap();
        let mut process = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--print-address"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("missing `dbus-daemon` ({error}): run `cargo image test`, which installs it")
            });
        let mut address = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut address)
            .unwrap();
        Self {
            process,
            address: address.trim().into(),
            _folder: folder,
        }
    }

    async fn connect(&self) -> Connection {
        let builder = zbus::connection::Builder::address(self.address.as_str());
        builder.build().await.unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The policy of the image, for groups and users of this machine.
fn policy() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../rootfs-overlay/usr/share/dbus-1/system.d/org.strongroom.Appliance1.conf");
    let mut text = fs::read_to_string(file).unwrap();
    for (name, other, _) in GROUPS {
        assert!(text.contains(&format!("group=\"{name}\"")));
        text = text.replace(&format!("group=\"{name}\""), &format!("group=\"{other}\""));
    }
    // Whoever runs the test stands for root.
    text.replace(
        "user=\"root\"",
        &format!("user=\"{}\"", rustix::process::geteuid().as_raw()),
    )
}

/// The face, served.
struct Face {
    daemon: Daemon,
    server: Connection,
    status: watch::Sender<Arc<Status>>,
    jobs: watch::Sender<Arc<Vec<Job>>>,
    commands: mpsc::Receiver<Order>,
    _folder: tempfile::TempDir,
}

impl Face {
    async fn new(status: Arc<Status>, jobs: Vec<Job>) -> Self {
        let daemon = Daemon::new(&policy());
        let server = daemon.connect().await;
        let folder = tempfile::tempdir().unwrap();
        let (status, seen) = watch::channel(status);
        let (jobs, listed) = watch::channel(Arc::new(jobs));
        let (sender, commands) = mpsc::channel(8);
        let needs = Needs {
            paths: Paths::new(folder.path()),
            status: seen,
            jobs: listed,
            commands: sender,
            systemd: Systemd::new(&server).await.unwrap(),
        };
        let served = dbus::serve(&server, needs).await.unwrap();
        tokio::spawn(dbus::announce(served));
        Self {
            daemon,
            server,
            status,
            jobs,
            commands,
            _folder: folder,
        }
    }
}

fn name(name: &str) -> ClientName {
    ClientName::new(name).unwrap()
}

fn client(called: &str, size_bytes: u64) -> Client {
    let mut client = Client {
        name: name(called),
        size_bytes,
        ..Client::default()
    };
    let target = Target {
        name: TargetName::new("oracle").unwrap(),
        ..Target::default()
    };
    client.targets.push(target).unwrap();
    client
}

fn status(clients: &[Client]) -> Arc<Status> {
    // Too large for a test's stack.
    let mut status = Box::<Status>::default();
    status.array.state = ArrayState::Mounted;
    status.clients.extend_from_slice(clients).unwrap();
    Arc::from(status)
}

fn job(kind: JobKind, state: State) -> Job {
    Job {
        id: "a1".repeat(16),
        kind,
        subject: "asus".into(),
        unit: "strongroom-push@asus.service".into(),
        started: 100,
        ended: (state != State::Running).then_some(200),
        state,
        reason: String::new(),
        working_on: String::new(),
        done_bytes: 0,
        total_bytes: 0,
    }
}

fn variant(value: impl Into<Variant<'static>>) -> OwnedVariant {
    value.into().try_into().unwrap()
}

/// What the service says, in its order.
struct Heard(MessageStream);

impl Heard {
    async fn by(bus: &Connection) -> Self {
        let rule = "type='signal',sender='org.strongroom.Appliance1'";
        Self(MessageStream::for_match_rule(rule, bus, None).await.unwrap())
    }

    /// Path, interface and name of the next signal, with what it carries.
    async fn next(&mut self) -> (String, String, zbus::Message) {
        let heard = tokio::time::timeout(PATIENCE, self.0.next())
            .await
            .expect("nothing was said");
        let message = heard.unwrap().unwrap();
        let header = message.header();
        let said = (header.path().unwrap().to_string(), header.member().unwrap().to_string());
        drop(header);
        (said.0, said.1, message)
    }

    /// The next changes of properties that are not the whole snapshot's: path, interface, names.
    async fn changed(&mut self) -> (String, String, BTreeMap<String, OwnedVariant>) {
        loop {
            let (path, member, message) = self.next().await;
            assert_eq!(member, "PropertiesChanged", "{path}");
            let body = message.body();
            let (interface, changed, invalidated): (String, HashMap<String, OwnedVariant>, Vec<String>) =
                body.deserialize().unwrap();
            if invalidated == ["Status"] {
                assert!(changed.is_empty());
                continue;
            }
            return (path, interface, changed.into_iter().collect());
        }
    }
}

#[tokio::test]
async fn objects_come_and_go_and_only_changes_are_told() {
    let face = Face::new(status(&[client("asus_home", 1)]), Vec::new()).await;
    let user = face.daemon.connect().await;
    let manager = ObjectManagerProxy::new(&user, bus::NAME, bus::ROOT).await.unwrap();
    let objects = manager.get_managed_objects().await.unwrap();
    // What only leads to others has no interface of ours.
    let objects_of_ours = objects.iter().filter(|(_, interfaces)| {
        interfaces
            .keys()
            .any(|name| name.as_str().starts_with("org.strongroom."))
    });
    let paths: BTreeSet<String> = objects_of_ours.map(|(path, _)| path.to_string()).collect();
    let asus = bus::client(&name("asus_home"));
    let copy = bus::target(&name("asus_home"), &TargetName::new("oracle").unwrap());
    let expected = [bus::ARRAY, bus::CLOCK, asus.as_str(), copy.as_str()];
    assert_eq!(paths, expected.into_iter().map(str::to_string).collect());

    let mut heard = Heard::by(&user).await;
    face.status.send_replace(status(&[client("asus_home", 2)]));
    let (path, interface, changed) = heard.changed().await;
    assert_eq!(
        (path.as_str(), interface.as_str()),
        (asus.as_str(), "org.strongroom.Appliance1.Client")
    );
    assert_eq!(changed, BTreeMap::from([("SizeBytes".into(), variant(2u64))]));

    let (_, member, message) = heard.next().await;
    assert_eq!(member, "PropertiesChanged", "of the whole snapshot");
    let (_, changed, invalidated): (String, HashMap<String, OwnedVariant>, Vec<String>) =
        message.body().deserialize().unwrap();
    assert!(changed.is_empty() && invalidated == ["Status"]);

    // A client takes another's place; both have a copy.
    face.status.send_replace(status(&[client("laptop", 7)]));
    let mut seen = Vec::new();
    for _ in 0..4 {
        let (path, member, _) = heard.next().await;
        assert_eq!(path, bus::ROOT);
        seen.push(member);
    }
    assert_eq!(
        seen,
        [
            "InterfacesRemoved",
            "InterfacesAdded",
            "InterfacesRemoved",
            "InterfacesAdded"
        ]
    );
    let laptop = bus::client(&name("laptop"));
    let objects = manager.get_managed_objects().await.unwrap();
    let interfaces = objects.iter().find(|(path, _)| path.as_str() == laptop).unwrap().1;
    let properties = interfaces
        .iter()
        .find(|(name, _)| name.as_str().ends_with(".Client"))
        .unwrap()
        .1;
    assert_eq!(properties["Name"], variant("laptop"));
    assert_eq!(properties["SizeBytes"], variant(7u64));
    assert_eq!(properties["QuotaBytes"], variant(-1i64));
    assert!(!objects.keys().any(|path| path.as_str() == asus));
}

#[tokio::test]
async fn jobs_are_objects_as_long_as_they_are_known() {
    let face = Face::new(status(&[]), Vec::new()).await;
    let user = face.daemon.connect().await;
    let mut heard = Heard::by(&user).await;
    let mut running = job(JobKind::Compact, State::Running);
    face.jobs.send_replace(Arc::new(vec![running.clone()]));
    assert_eq!(heard.next().await.1, "InterfacesAdded");
    let path = bus::job(&running.id);
    let stop = async || {
        let destination = Some(bus::NAME);
        let stopped = user.call_method(
            destination,
            path.as_str(),
            Some("org.strongroom.Appliance1.Job"),
            "Stop",
            &(),
        );
        stopped.await.unwrap_err().to_string()
    };
    let told = stop().await;
    assert!(told.contains("a compact changes the repository"), "{told}");
    running.state = State::Failed;
    running.ended = Some(300);
    running.reason = "timeout".into();
    face.jobs.send_replace(Arc::new(vec![running]));
    let (of, _, changed) = heard.changed().await;
    assert_eq!(of, path);
    let names: Vec<&str> = changed.keys().map(String::as_str).collect();
    assert_eq!(names, ["Ended", "Reason", "State"]);
    assert!(stop().await.contains("has ended"));
    face.jobs.send_replace(Arc::default());
    assert_eq!(heard.next().await.1, "InterfacesRemoved");
}

#[tokio::test]
async fn methods_start_what_is_theirs_and_say_why_not() {
    let mut without = client("laptop", 1);
    without.targets.clear();
    let mut face = Face::new(status(&[client("asus", 1), without]), Vec::new()).await;
    let user = face.daemon.connect().await;
    let call = async |path: String, method: &'static str| {
        let called = user.call_method(
            Some(bus::NAME),
            path.as_str(),
            Some("org.strongroom.Appliance1.Client"),
            method,
            &(),
        );
        called.await.map(drop).map_err(|error| error.to_string())
    };
    call(bus::client(&name("asus")), "Push").await.unwrap();
    assert_eq!(face.commands.recv().await, Some(Order::Push(name("asus"))));
    call(bus::client(&name("laptop")), "Check").await.unwrap();
    assert_eq!(face.commands.recv().await, Some(Order::Check(Some(name("laptop")))));
    let told = call(bus::client(&name("laptop")), "Push").await.unwrap_err();
    assert!(told.contains("no off-site target"), "{told}");
    let told = call(bus::client(&name("nobody")), "Push").await.unwrap_err();
    assert!(told.contains("Unknown object"), "{told}");
    let mut away = status(&[client("asus", 1)]);
    Arc::get_mut(&mut away).unwrap().array.state = ArrayState::NotReady;
    face.status.send_replace(away);
    let told = call(bus::client(&name("asus")), "Push").await.unwrap_err();
    assert!(told.contains("not mounted"), "{told}");
    assert!(face.commands.try_recv().is_err(), "nothing was begun");
}

/// The interfaces that an object has of ours, as it describes them, without the level of their indentation.
async fn described(user: &Connection, path: &str, found: &mut BTreeMap<String, String>) {
    let introspected = user
        .call_method(
            Some(bus::NAME),
            path,
            Some("org.freedesktop.DBus.Introspectable"),
            "Introspect",
            &(),
        )
        .await
        .unwrap();
    let text: String = introspected.body().deserialize().unwrap();
    let mut current: Option<(String, String)> = None;
    let mut depth = 0;
    for line in text.lines() {
        if let Some(name) = line.trim().strip_prefix("<interface name=\"org.strongroom.") {
            // What lies below describes itself.
            if depth == 1 {
                current = Some((name.trim_end_matches("\">").to_string(), String::new()));
            }
        }
        depth += line.matches("<node").count();
        depth -= line.matches("</node>").count();
        if let Some((_, body)) = &mut current {
            body.push_str(line);
            body.push('\n');
        }
        if line.trim() == "</interface>"
            && let Some((name, body)) = current.take()
        {
            found.insert(name, body);
        }
    }
}

/// `STRONGROOM_WRITE_INTERFACES=1` writes the file anew.
#[tokio::test]
async fn the_installed_description_is_that_of_the_objects() {
    let mut with = status(&[client("asus", 1)]);
    let disks = &mut Arc::get_mut(&mut with).unwrap().disks;
    disks.push(Default::default()).unwrap();
    let running = job(JobKind::Push, State::Running);
    let face = Face::new(with, vec![running.clone()]).await;
    let user = face.daemon.connect().await;
    let mut found = BTreeMap::new();
    let asus = name("asus");
    for path in [
        bus::ROOT.to_string(),
        bus::ARRAY.into(),
        bus::CLOCK.into(),
        bus::disk(""),
        bus::client(&asus),
        bus::target(&asus, &TargetName::new("oracle").unwrap()),
        bus::job(&running.id),
    ] {
        described(&user, &path, &mut found).await;
    }
    assert_eq!(found.len(), 7, "{:?}", found.keys());
    for (name, text) in &found {
        let members = text.matches("<method").count() + text.matches("<property").count();
        assert_eq!(
            text.matches("<!--").count(),
            members,
            "{name} is not documented whole:\n{text}"
        );
    }
    let text = format!(
        "<!DOCTYPE node PUBLIC \"-//freedesktop//DTD D-BUS Object Introspection 1.0//EN\"\n \"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd\">\n<!-- As the objects describe themselves; docs/dbus.md tells more. Written by the test of the D-Bus face. -->\n<node>\n{}</node>\n",
        found.into_values().collect::<String>()
    );
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../rootfs-overlay/usr/share/dbus-1/interfaces/org.strongroom.Appliance1.xml");
    if std::env::var_os("STRONGROOM_WRITE_INTERFACES").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, &text).unwrap();
    }
    let installed = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        installed == text,
        "{} is not what the objects say; write it anew with STRONGROOM_WRITE_INTERFACES=1",
        file.display()
    );
}

/// Calls a method as a member of this group, or of none, and no other account.
async fn called(face: &Face, group: Option<&str>, to: &str, path: &str, method: &str, arguments: &[&str]) -> Output {
    let mut command = as_member(group);
    command
        .args(["gdbus", "call", "--address", &face.daemon.address, "--dest", to])
        .args(["--object-path", path, "--method", method])
        .args(arguments);
    // The face answers meanwhile.
    tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap()
}

#[track_caller]
fn is_refused(output: &Output) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("AccessDenied"), "{told}");
}

#[track_caller]
fn is_done(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn as_member(group: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534"]);
    match group {
        Some(group) => {
            let number = GROUPS.iter().find(|(name, ..)| *name == group).unwrap().2;
            command.arg(format!("--groups={number}"))
        }
        None => command.arg("--clear-groups"),
    };
    command
}

/// Whether this test may be others; says so when not.
fn may_be_others() -> bool {
    let may = rustix::process::geteuid().is_root();
    if !may {
        eprintln!("not tried: needs root, to be others");
    }
    may
}

#[tokio::test]
async fn the_policy_lets_members_do_what_is_theirs_and_nobody_else_anything() {
    if !may_be_others() {
        return;
    }
    let face = Face::new(status(&[client("asus", 1)]), Vec::new()).await;
    let asus = bus::client(&name("asus"));
    let (status, admin) = (Some("strongroom-status"), Some("strongroom-admin"));
    let reading: [(&str, &str, &[&str]); 4] = [
        (
            &asus,
            "org.freedesktop.DBus.Properties.Get",
            &["org.strongroom.Appliance1.Client", "SizeBytes"],
        ),
        (
            bus::ROOT,
            "org.freedesktop.DBus.Properties.GetAll",
            &["org.strongroom.Appliance1"],
        ),
        (bus::ROOT, "org.freedesktop.DBus.ObjectManager.GetManagedObjects", &[]),
        (&asus, "org.freedesktop.DBus.Introspectable.Introspect", &[]),
    ];
    for (path, method, arguments) in reading {
        is_refused(&called(&face, None, bus::NAME, path, method, arguments).await);
        is_done(&called(&face, status, bus::NAME, path, method, arguments).await);
        is_done(&called(&face, admin, bus::NAME, path, method, arguments).await);
    }
    for (path, method) in [
        (asus.as_str(), "org.strongroom.Appliance1.Client.Push"),
        (bus::ARRAY, "org.strongroom.Appliance1.Array.Scrub"),
        (bus::ROOT, "org.strongroom.Appliance1.CheckAll"),
        (bus::ROOT, "org.strongroom.Appliance1.Jobs"),
    ] {
        is_refused(&called(&face, None, bus::NAME, path, method, &[]).await);
        is_refused(&called(&face, status, bus::NAME, path, method, &[]).await);
        is_done(&called(&face, admin, bus::NAME, path, method, &[]).await);
    }
    // The name is nobody else's.
    let request = "org.freedesktop.DBus.RequestName";
    is_refused(&called(&face, admin, "org.freedesktop.DBus", "/", request, &[bus::NAME, "0"]).await);
}

type Lines = std::io::Lines<BufReader<std::process::ChildStdout>>;

/// A listener, once it knows whom to listen to.
fn listener(mut command: Command, address: &str) -> (Child, Lines) {
    command
        .args(["gdbus", "monitor", "--address", address, "--dest", bus::NAME])
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines
        .find(|line| line.as_ref().unwrap().contains("is owned by"))
        .unwrap()
        .unwrap();
    (child, lines)
}

/// What a listener hears, up to a line with this in it.
async fn heard_until(mut lines: Lines, what: &'static str) -> Vec<String> {
    let read = tokio::task::spawn_blocking(move || {
        let mut heard = Vec::new();
        for line in &mut lines {
            heard.push(line.unwrap());
            if heard.last().unwrap().contains(what) {
                return heard;
            }
        }
        panic!("`{what}` was not heard, but {heard:?}");
    });
    tokio::time::timeout(PATIENCE, read).await.expect(what).unwrap()
}

#[tokio::test]
async fn signals_are_heard_by_members_alone() {
    if !may_be_others() {
        return;
    }
    let face = Face::new(status(&[client("asus", 1)]), Vec::new()).await;
    let listen = async |group| {
        let address = face.daemon.address.clone();
        let started = tokio::task::spawn_blocking(move || listener(as_member(group), &address));
        started.await.unwrap()
    };
    let (mut stranger, strange) = listen(None).await;
    let (mut member, known) = listen(Some("strongroom-status")).await;
    // gdbus begins to hear only a moment after it says so: it is told again and again.
    let telling = async {
        for size in 2.. {
            face.status.send_replace(status(&[client("asus", size)]));
            tokio::time::sleep(Duration::from_millis(600)).await;
        }
    };
    let heard = tokio::select! {
        heard = heard_until(known, "SizeBytes") => heard,
        () = telling => unreachable!("it goes on"),
    };
    assert!(heard.last().unwrap().contains("/client/asus"), "{heard:?}");
    // What everybody hears, after it.
    face.server.release_name(bus::NAME).await.unwrap();
    let heard = heard_until(strange, "does not have an owner").await;
    assert_eq!(heard.len(), 1, "{heard:?}");
    for child in [&mut member, &mut stranger] {
        let _ = child.kill();
        let _ = child.wait();
    }
}
