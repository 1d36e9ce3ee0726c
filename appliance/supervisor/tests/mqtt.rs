//! The MQTT face against a real mosquitto on loopback, read by a second real client.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/mqtt.rs"]
mod support;

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command as Program;
use std::time::Duration;
use strongroom_model::config::{Mqtt, MqttVersion, Word};
use strongroom_model::name::ClientName;
use strongroom_offsite::trust;
use strongroom_supervisor::faces::mqtt::access::Access;
use strongroom_supervisor::faces::mqtt::tls::{Authorities, Tls};
use strongroom_supervisor::report::Command;
use support::{Broker, Face, Observer, PATIENCE, config, discovery, free_port, of};

#[tokio::test]
async fn retained_states_reach_one_who_comes_later_and_changes_follow() {
    let broker = Broker::start();
    let mut face = Face::start(broker.config(), None);
    let mut early = Observer::start(broker.port).await;
    early
        .until_payload(&of("client/asus_home"), "2023-11-15T01:00:00+00:00")
        .await;

    let mut late = Observer::start(broker.port).await;
    let topics = [
        "availability",
        "health",
        "clock",
        "array",
        "disks",
        "appliance",
        "client/asus_home",
    ];
    let seen = late
        .until("all retained messages", |seen| {
            topics.iter().all(|subject| seen.payloads.contains_key(&of(subject)))
        })
        .await;
    assert_eq!(seen.payloads[&of("availability")], "online");
    for topic in [discovery(""), discovery("_client_asus_home")] {
        let payload: serde_json::Value = serde_json::from_str(&seen.payloads[&topic]).unwrap();
        assert!(payload["components"].is_object(), "{topic}");
    }
    assert_eq!(seen.payloads.len(), topics.len() + 2, "{:?}", seen.payloads.keys());

    face.change(|status| status.clock.stratum = 3);
    late.until_payload(&of("clock"), "\"stratum\":3").await;
    assert_eq!(
        late.seen.borrow().counts[&of("array")],
        1,
        "what did not change is not sent"
    );
    face.contented().await;
}

#[tokio::test]
async fn the_will_speaks_when_the_connection_is_cut_and_offline_when_told_to_stop() {
    let broker = Broker::start();
    let mut observer = Observer::start(broker.port).await;
    let face = Face::start(broker.config(), None);
    observer.until_payload(&of("availability"), "online").await;
    face.task.abort();
    observer.until_payload(&of("availability"), "offline").await;

    let mut face = Face::start(broker.config(), None);
    observer.until_payload(&of("availability"), "online").await;
    face.stop.send(true).unwrap();
    tokio::time::timeout(PATIENCE, &mut face.task).await.unwrap().unwrap();
    observer.until_payload(&of("availability"), "offline").await;
    // Said once: the broker did not add the will.
    assert_eq!(observer.seen.borrow().counts[&of("availability")], 4);
}

#[tokio::test]
async fn a_birth_brings_everything_again() {
    let broker = Broker::start();
    let mut observer = Observer::start(broker.port).await;
    let _face = Face::start(broker.config(), None);
    observer.until_payload(&of("client/asus_home"), "asus_home").await;
    // Nothing of this is a birth.
    observer.publish("homeassistant/status", false, "offline").await;
    observer.publish("homeassistant/status", false, "online").await;
    observer
        .until("everything again", |seen| {
            [
                discovery(""),
                discovery("_client_asus_home"),
                of("availability"),
                of("clock"),
                of("client/asus_home"),
            ]
            .iter()
            .all(|topic| seen.counts.get(topic) == Some(&2))
        })
        .await;
}

#[tokio::test]
async fn commands_arrive_but_not_retained_unknown_or_malformed_ones() {
    let broker = Broker::start();
    let mut observer = Observer::start(broker.port).await;
    observer.publish(&of("client/asus_home/push/set"), true, "PRESS").await;
    observer.until_payload(&of("client/asus_home/push/set"), "PRESS").await;
    let mut face = Face::start(broker.config(), None);
    observer.until_payload(&of("client/asus_home"), "asus_home").await;
    observer.publish(&of("client/stranger/push/set"), false, "PRESS").await;
    observer
        .publish(&of("client/asus_home/push/set"), false, "DELETE")
        .await;
    observer.publish(&of("identify/set"), false, "PRESS").await;
    observer.publish(&of("client/asus_home/push/set"), false, "PRESS").await;
    assert_eq!(face.command().await, Command::Identify);
    assert_eq!(
        face.command().await,
        Command::Push(ClientName::new("asus_home").unwrap())
    );
    assert!(face.commands.try_recv().is_err());
}

#[tokio::test]
async fn a_broker_that_restarts_and_has_forgotten_is_told_again() {
    let mut broker = Broker::start();
    let mut face = Face::start(broker.config(), None);
    Observer::start(broker.port)
        .await
        .until_payload(&of("availability"), "online")
        .await;
    broker.kill();
    let advice = face.condition("nothing listens").await;
    assert!(advice.contains("listener 1883"), "{advice}");
    face.change(|status| status.clock.stratum = 7);
    broker.again();
    face.contented().await;
    let mut observer = Observer::start(broker.port).await;
    observer.until_payload(&of("clock"), "\"stratum\":7").await;
    observer.until_payload(&discovery(""), "components").await;
}

#[tokio::test]
async fn refused_credentials_are_told_and_good_ones_work() {
    let broker = Broker::with("allow_anonymous false\npassword_file PLACE/users");
    let users = broker.place.path().join("users");
    let set = Program::new("mosquitto_passwd")
        .args(["-b", "-c"])
        .arg(&users)
        .args(["strongroom", "right"])
        .status();
    assert!(
        set.expect("missing `mosquitto_passwd`: run `cargo image test`, which installs it")
            .success()
    );
    let mut broker = broker;
    broker.kill();
    broker.again();
    let with_user = || Mqtt {
        username: Word::new("strongroom"),
        ..broker.config()
    };
    let mut face = Face::start(with_user(), Some("wrong"));
    let advice = face.condition("refuses the user name or password").await;
    assert!(advice.contains("username") && !advice.contains("wrong"), "{advice}");
    Face::start(broker.config(), None)
        .condition("refuses the user name or password")
        .await;

    let mut face = Face::start(with_user(), Some("right"));
    let change = face.report.changed();
    // Nothing is ever reported, and a command shows that it is connected; the broker has no other user to ask.
    assert!(tokio::time::timeout(Duration::from_secs(2), change).await.is_err());
    let press = Program::new("mosquitto_pub")
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &broker.port.to_string(),
            "-u",
            "strongroom",
            "-P",
            "right",
        ])
        .args(["-q", "1", "-t", &of("identify/set"), "-m", "PRESS"])
        .status();
    assert!(
        press
            .expect("missing `mosquitto_pub`: run `cargo image test`, which installs it")
            .success()
    );
    assert_eq!(face.command().await, Command::Identify);
}

#[tokio::test]
async fn a_client_that_goes_vanishes_even_one_of_an_earlier_run() {
    let broker = Broker::start();
    let mut observer = Observer::start(broker.port).await;
    observer.publish(&of("client/gone"), true, "{\"targets\":{}}").await;
    observer.publish(&discovery("_client_gone"), true, "{}").await;
    observer
        .publish(&of("client/asus_home"), true, "{\"targets\":{\"old\":{}}}")
        .await;
    let face = Face::start(broker.config(), None);
    observer
        .until("the earlier client to vanish", |seen| {
            !seen.payloads.contains_key(&of("client/gone")) && !seen.payloads.contains_key(&discovery("_client_gone"))
        })
        .await;
    // The earlier target's entities are first removed, then left out.
    let device = discovery("_client_asus_home");
    observer
        .until_payload(&device, "\"target_old_last_push\":{\"platform\":\"sensor\"}")
        .await;
    observer
        .until("the earlier target to be left out", |seen| {
            seen.payloads
                .get(&device)
                .is_some_and(|payload| !payload.contains("target_old"))
        })
        .await;
    face.change(|status| status.clients.clear());
    observer
        .until("the client to vanish", |seen| {
            !seen.payloads.contains_key(&of("client/asus_home")) && !seen.payloads.contains_key(&device)
        })
        .await;
}

/// An authority, a broker's certificate that it signed, and one for us, made by openssl in a folder.
struct Authority {
    place: tempfile::TempDir,
}

impl Authority {
    /// `names`: what the broker's certificate is for, as in subjectAltName.
    fn new(names: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        let openssl = |arguments: &str| {
            let output = Program::new("openssl")
                .args(arguments.split(' '))
                .current_dir(place.path())
                .output()
                .expect("missing `openssl`: run `cargo image test`, which installs it");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        let new = "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(&format!(
            "{new} -x509 -days 2 -subj /CN=home -keyout ca.key -out ca.pem"
        ));
        for (name, kind) in [
            ("broker", format!("subjectAltName={names}")),
            ("own", "extendedKeyUsage=clientAuth".into()),
        ] {
            openssl(&format!("{new} -subj /CN={name} -keyout {name}.key -out {name}.csr"));
            std::fs::write(place.path().join("extensions"), kind).unwrap();
            openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out {name}.pem"
            ));
        }
        Self { place }
    }

    fn file(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.place.path().join(name)).unwrap()
    }

    /// What believes this authority alone, and shows the certificate that it signed for us if it is to.
    fn access(&self, own: bool) -> Access {
        let authorities = Authorities::Only(trust::parse(&self.file("ca.pem")).unwrap());
        let (certificate, key) = (self.file("own.pem"), self.file("own.key"));
        let own = own.then_some((certificate.as_slice(), key.as_slice()));
        Access {
            password: None,
            tls: Some(Tls::new(&authorities, own).unwrap()),
        }
    }

    /// A broker with its certificate, which wants one of whoever comes and knows them by it; with an open door for the
    /// observer, whose port comes with it.
    fn broker(self) -> (Broker, u16) {
        let open = free_port();
        let lines = format!(
            "cafile PLACE/ca.pem\ncertfile PLACE/broker.pem\nkeyfile PLACE/broker.key\nrequire_certificate true\n\
             use_identity_as_username true\nlistener {open} 127.0.0.1\nallow_anonymous true"
        );
        (Broker::at(self.place, &lines), open)
    }
}

#[tokio::test]
async fn all_of_it_by_either_version_through_tls_with_a_certificate() {
    for version in [MqttVersion::V3, MqttVersion::V5] {
        let authority = Authority::new("IP:127.0.0.1");
        let access = authority.access(true);
        let (broker, open) = authority.broker();
        let mut observer = Observer::start(open).await;
        observer.publish(&of("client/gone"), true, "{\"targets\":{}}").await;
        let config = Mqtt {
            version,
            ..broker.config()
        };
        let mut face = Face::with(config, access);
        observer.until_payload(&of("client/asus_home"), "asus_home").await;
        observer.until_payload(&discovery(""), "components").await;
        face.change(|status| status.clock.stratum = 9);
        observer.until_payload(&of("clock"), "\"stratum\":9").await;
        observer.publish(&of("identify/set"), false, "PRESS").await;
        assert_eq!(face.command().await, Command::Identify);
        observer.publish("homeassistant/status", false, "online").await;
        observer
            .until("everything again", |seen| seen.counts.get(&discovery("")) == Some(&2))
            .await;
        observer
            .until("the earlier client to vanish", |seen| {
                !seen.payloads.contains_key(&of("client/gone"))
            })
            .await;
        face.stop.send(true).unwrap();
        tokio::time::timeout(PATIENCE, &mut face.task).await.unwrap().unwrap();
        observer.until_payload(&of("availability"), "offline").await;
        face.contented().await;

        // And by the will, when it is cut.
        let authority = Authority {
            place: broker_place(broker),
        };
        let access = authority.access(true);
        let (broker, open) = authority.broker();
        let mut observer = Observer::start(open).await;
        let config = Mqtt {
            version,
            ..broker.config()
        };
        let face = Face::with(config, access);
        observer.until_payload(&of("availability"), "online").await;
        face.task.abort();
        observer.until_payload(&of("availability"), "offline").await;
    }
}

/// Ends a broker and gives back its folder.
fn broker_place(mut broker: Broker) -> tempfile::TempDir {
    broker.kill();
    std::mem::replace(&mut broker.place, tempfile::tempdir().unwrap())
}

#[tokio::test]
async fn what_is_wrong_with_tls_is_told() {
    let authority = Authority::new("IP:127.0.0.1");
    let (without, stranger) = (authority.access(false), Authority::new("DNS:elsewhere"));
    let (certificate, key) = (stranger.file("own.pem"), stranger.file("own.key"));
    let believing = Authorities::Only(trust::parse(&authority.file("ca.pem")).unwrap());
    let strangers_own = Tls::new(&believing, Some((certificate.as_slice(), key.as_slice()))).unwrap();
    let (broker, open) = authority.broker();
    let told = async |access: Access, port: u16, text: &str| {
        for version in [MqttVersion::V3, MqttVersion::V5] {
            let config = Mqtt {
                version,
                ..config(port)
            };
            let mut face = Face::with(config, access.clone());
            face.condition(text).await;
        }
    };
    told(without.clone(), broker.port, "refuses TLS with us").await;
    let strangers_own = Access {
        password: None,
        tls: Some(strangers_own),
    };
    told(strangers_own, broker.port, "refuses TLS with us").await;
    told(stranger.access(true), broker.port, "nobody who is trusted vouches").await;
    told(without, open, "does not speak TLS").await;
    let access = stranger.access(true);
    let (elsewhere, _) = stranger.broker();
    told(access, elsewhere.port, "is for another name").await;
}

#[test]
fn files_that_do_not_fit_together_are_refused() {
    let (one, other) = (Authority::new("IP:127.0.0.1"), Authority::new("IP:127.0.0.1"));
    let authorities = Authorities::Only(trust::parse(&one.file("ca.pem")).unwrap());
    let refused = |certificate: &[u8], key: &[u8]| Tls::new(&authorities, Some((certificate, key))).err().unwrap();
    let (certificate, key) = (one.file("own.pem"), one.file("own.key"));
    assert!(refused(&certificate, &other.file("own.key")).contains("does not belong"));
    assert!(refused(&key, &key).contains("no certificate"));
    assert!(refused(&certificate, &certificate).contains("no private key"));
}

#[tokio::test]
async fn a_broker_that_accepts_and_never_answers_is_told() {
    let deaf = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut face = Face::start(config(deaf.local_addr().unwrap().port()), None);
    face.condition("does not answer in time").await;
    let mut face = Face::start(
        Mqtt {
            version: MqttVersion::V5,
            ..config(deaf.local_addr().unwrap().port())
        },
        None,
    );
    face.condition("does not answer in time").await;
}

#[tokio::test]
async fn a_broker_that_lets_us_in_and_then_never_answers_is_told() {
    // Its acceptance in each version (MQTT 3.1.1 and 5.0, section 3.2), and nothing more: it does not even read.
    let accepting: [(MqttVersion, &[u8]); 2] = [
        (MqttVersion::V3, &[0x20, 2, 0, 0]),
        (MqttVersion::V5, &[0x20, 3, 0, 0, 0]),
    ];
    let told = accepting.map(|(version, acceptance)| async move {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let config = Mqtt {
            version,
            ..config(listener.local_addr().unwrap().port())
        };
        let mut face = Face::start(config, None);
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, acceptance)
            .await
            .unwrap();
        // Two of the connection's own pings, half a minute apart.
        let report = face.report.wait_for(|report| !report.conditions.is_empty());
        let report = tokio::time::timeout(3 * PATIENCE, report)
            .await
            .unwrap()
            .unwrap()
            .clone();
        assert!(
            report.conditions[0].text.contains("does not answer in time"),
            "{report:?}"
        );
        drop(stream);
    });
    let [first, second] = told;
    tokio::join!(first, second);
}
