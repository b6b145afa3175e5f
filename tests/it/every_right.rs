//! Every right is needed: with what the template gives the main job runs; without any one right a named piece of it fails, and the
//! message says what is missing. The world is the committed snapshot's (`infra/snapshots/default.snapshot.json`).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use serde_json::json;
use simulator::eventually::eventually;
use simulator::happenings::{Happening, Kind};
use simulator::infra::{AssignedRole, Infra};
use simulator::iot_hub::Fault;
use simulator::stack::{LocalDevice, WebhookAnswer};
use simulator::world::{Handler, World};

use crate::infra::files::{read, table};
use crate::support::*;

/// A role assignment as a person would name it: role, place, identity.
type Named = (&'static str, &'static str, &'static str);

const APP: &str = "tts-iot-hub-example-app";
const HUB: &str = "tts-iot-hub-example-hub";

/// How often a webhook that is answered 503 is sent.
const TRIES: usize = 3;

/// What the bridge does with its rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    /// The join and the uplink of a device that IoT Hub does not know are delivered.
    UnknownDevice,
    /// Tags become a registration, and a desired property a downlink.
    TwinChange,
    /// An uplink of an outage is parked.
    Parking,
    /// It is delivered afterwards.
    Unparking,
    /// An uplink of a disabled device is dead-lettered.
    DeadLetter,
}

/// Who tells what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Teller {
    /// The bridge, in its answer to the webhook or in its log.
    Bridge,
    /// The Functions host, in its log.
    Host,
    /// IoT Hub, in its diagnostics.
    IotHub,
}

/// What fails without a role, and who says it in which words.
struct Loss {
    role: Named,
    piece: Piece,
    teller: Teller,
    words: &'static [&'static str],
    /// A piece that needs other rights and so comes about all the same; `None` where without the role nothing works.
    control: Option<Piece>,
}

/// Every role that docs/security.md calls a need of the bridge, and nothing else.
const LOSSES: [Loss; 8] = [
    Loss {
        role: ("IoT Hub Registry Contributor", "IotHubs/tts-iot-hub-example", APP),
        piece: Piece::UnknownDevice,
        teller: Teller::Bridge,
        words: &["role IoT Hub Registry Contributor"],
        control: Some(Piece::TwinChange),
    },
    Loss {
        role: ("IoT Hub Twin Contributor", "IotHubs/tts-iot-hub-example", APP),
        piece: Piece::TwinChange,
        teller: Teller::Bridge,
        words: &["role IoT Hub Twin Contributor"],
        control: Some(Piece::Parking),
    },
    Loss {
        role: ("Azure Event Hubs Data Receiver", "eventhubs/stack-events", APP),
        piece: Piece::TwinChange,
        teller: Teller::Host,
        words: &["'Functions.EventHubForwarder' was unable to start", "role Azure Event Hubs Data Receiver"],
        control: Some(Piece::UnknownDevice),
    },
    Loss {
        role: ("Azure Event Hubs Data Receiver", "eventhubs/parked-uplinks", APP),
        piece: Piece::Unparking,
        teller: Teller::Host,
        words: &["'Functions.ParkedUplinks' was unable to start", "role Azure Event Hubs Data Receiver"],
        control: Some(Piece::UnknownDevice),
    },
    Loss {
        role: ("Azure Event Hubs Data Sender", "eventhubs/parked-uplinks", APP),
        piece: Piece::Parking,
        teller: Teller::Bridge,
        words: &["event hub parked-uplinks refused us", "role Azure Event Hubs Data Sender"],
        control: Some(Piece::UnknownDevice),
    },
    Loss {
        role: ("Azure Event Hubs Data Sender", "eventhubs/dead-letters", APP),
        piece: Piece::DeadLetter,
        teller: Teller::Bridge,
        words: &["event hub dead-letters refused us", "role Azure Event Hubs Data Sender"],
        control: Some(Piece::UnknownDevice),
    },
    Loss {
        role: ("Azure Event Hubs Data Sender", "eventhubs/stack-events", HUB),
        piece: Piece::TwinChange,
        teller: Teller::IotHub,
        words: &["event dropped", "Azure Event Hubs Data Sender on stack-events"],
        control: Some(Piece::UnknownDevice),
    },
    Loss {
        role: ("Key Vault Secrets User", "vaults/tts-iot-hub-example", APP),
        piece: Piece::UnknownDevice,
        teller: Teller::Bridge,
        words: &["the Key Vault reference was not resolved", "role Key Vault Secrets User"],
        control: None,
    },
];

fn template() -> Infra {
    Infra::read(&root().join("infra/snapshots/default.snapshot.json")).expect("the snapshot is read")
}

fn name(assigned: &AssignedRole) -> (&str, &str, &str) {
    (assigned.assignment.role.name, assigned.place(), &assigned.identity)
}

/// Who has which role where, as docs/security.md names it.
fn documented_name((role, place, identity): (&str, &str, &str)) -> [String; 3] {
    let (_, who) = identity.rsplit_once('-').expect("a name with a suffix");
    let place = match place.split_once('/') {
        Some(("IotHubs", _)) => "IoT Hub".to_owned(),
        Some(("eventhubs", name)) => format!("Event Hub `{name}`"),
        Some(("vaults", _)) => "Key Vault".to_owned(),
        Some(("storageAccounts", _)) => "storage account".to_owned(),
        Some(("components", _)) => "Application Insights".to_owned(),
        _ => panic!("docs/security.md has no name for {place}"),
    };
    [who.to_owned(), role.to_owned(), place]
}

/// The roles in docs/security.md, and whether each is a need of the bridge. The others are the platform's, for the simulated host has
/// no storage and sends no metrics: their sources stand there.
fn documented() -> Vec<([String; 3], bool)> {
    let rows = table(&read("docs/security.md"), "roles").into_iter().map(|row| {
        let [who, role, place, .., need] = row.as_slice() else { panic!("{row:?}") };
        ([who, role, place].map(String::clone), need == "bridge")
    });
    rows.collect()
}

/// A world of a template, and what everyone in it says.
struct Stage {
    world: World,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Stage {
    async fn open(infra: Infra) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let log = {
            let lines = Arc::clone(&lines);
            Box::new(move |line: &str| lines.lock().expect("no panic").push(line.to_owned()))
        };
        let world = start_as(Handler::Program(handler()), &[], Some(infra), log).await;
        Self { world, lines }
    }

    /// What a webhook is answered counts as said by the bridge.
    fn keep(&self, answer: &WebhookAnswer) {
        let text = String::from_utf8_lossy(&answer.body);
        self.lines.lock().expect("no panic").push(format!("handler: answered {:?} {text}", answer.status));
    }

    /// All that was said.
    fn all(&self) -> String {
        self.lines.lock().expect("no panic").join("\n")
    }

    /// Whether someone said all these words at once.
    fn said(&self, teller: Teller, words: &[&str]) -> bool {
        let fits = |line: &str| words.iter().all(|word| line.contains(word));
        let prefix = match teller {
            Teller::IotHub => {
                let told = self.world.happenings.after(0).happenings;
                return told.iter().any(|happening| fits(&happening.title));
            }
            Teller::Bridge => "handler: ",
            Teller::Host => "host: ",
        };
        self.lines.lock().expect("no panic").iter().any(|line| line.starts_with(prefix) && fits(line))
    }

    /// Every refusal for lack of a role: the role, the principal, and the resource.
    fn refusals(&self) -> BTreeSet<[String; 3]> {
        let told = self.world.happenings.after(0);
        assert_eq!(told.missed, 0, "more happened than is kept");
        let refused = told.happenings.into_iter().filter(|happening| happening.kind == Kind::Refused);
        let part = |happening: &Happening, name: &str| happening.detail[name].as_str().unwrap_or_default().to_owned();
        refused.map(|happening| ["role", "principal", "resource"].map(|name| part(&happening, name))).collect()
    }

    /// Sends an uplink, and again while it is answered 503, as The Things Stack Cloud does: a busy machine must not look like a missing
    /// right.
    async fn uplink(&self, device: &str) {
        let stack = &self.world.stack;
        let up = stack.compose_uplink(device, 2, Some(json!({"n": 1}))).expect("the device has a session");
        for _ in 0..TRIES {
            let answer = stack.send(&up).await;
            self.keep(&answer);
            if answer.is_success() {
                return;
            }
        }
    }

    /// Does what sets a piece going. What must come of it is told by [`Self::holds`].
    async fn play(&self, piece: Piece) {
        let world = &self.world;
        match piece {
            Piece::UnknownDevice => {
                world.stack.register_local(&LocalDevice::otaa("probe-unknown", 1)).expect("a valid device");
                self.keep(&world.stack.join("probe-unknown").await);
                self.uplink("probe-unknown").await;
            }
            Piece::TwinChange => {
                let desired = json!({"rawDownlink": {"fPort": 15, "framePayload": "BEEF"}});
                service(world).create_device("valve-0001", &lorawan_tags(1)).await.expect("made");
                service(world).patch_desired("valve-0001", &desired).await.expect("patched");
            }
            Piece::Parking | Piece::Unparking => {
                service(world).create_device("probe-parked", &json!({})).await.expect("made");
                world.stack.register_local(&LocalDevice::abp("probe-parked", 2)).expect("a valid device");
                world.iot_hub.set_fault(Fault::Refuse);
                self.uplink("probe-parked").await;
                world.iot_hub.set_fault(Fault::None);
            }
            Piece::DeadLetter => {
                service(world).create_device("probe-disabled", &json!({})).await.expect("made");
                service(world).set_enabled("probe-disabled", false).await.expect("disabled");
                world.stack.register_local(&LocalDevice::abp("probe-disabled", 3)).expect("a valid device");
                self.uplink("probe-disabled").await;
            }
        }
    }

    /// Whether what a piece is for has come about.
    fn holds(&self, piece: Piece) -> bool {
        let world = &self.world;
        let delivered = |device: &str| {
            let mut sender = telemetry(world)
                .into_iter()
                .map(|stored| text(stored.event.annotations.get("iothub-connection-device-id")).unwrap_or_default());
            sender.any(|sender| sender == device) && reported(world, device)["decodedPayload"]["n"] == 1
        };
        match piece {
            Piece::UnknownDevice => delivered("probe-unknown"),
            Piece::TwinChange => {
                let stack = &twin(world, "valve-0001")["tags"]["stack"];
                stack["registration"]["state"] == "registered" && stack["downlink"]["state"] == "waiting"
            }
            Piece::Parking => !events(world, "parked-uplinks").is_empty(),
            Piece::Unparking => delivered("probe-parked"),
            Piece::DeadLetter => !events(world, "dead-letters").is_empty(),
        }
    }
}

#[test]
fn each_role_that_the_bridge_needs_is_taken_away_below_and_the_template_has_no_other() {
    let template = template();
    let given: BTreeSet<_> = template.assignments().iter().map(|one| documented_name(name(one))).collect();
    assert_eq!(template.assignments().len(), given.len(), "none is given twice");
    let documented = documented();
    assert_eq!(given, documented.iter().map(|(name, _)| name.clone()).collect());
    let needed: BTreeSet<_> =
        documented.into_iter().filter(|(_, by_bridge)| *by_bridge).map(|(name, _)| name).collect();
    assert_eq!(needed, LOSSES.iter().map(|loss| documented_name(loss.role)).collect());
    let rights: Vec<_> = template.hub.policies.iter().flat_map(|policy| &policy.rights).collect();
    assert_eq!(rights, ["DeviceConnect"], "the one right that is taken away below");
}

#[tokio::test]
async fn with_all_rights_of_the_template_every_piece_of_the_main_job_passes() {
    let stage = Stage::open(template()).await;
    for piece in [Piece::UnknownDevice, Piece::TwinChange, Piece::DeadLetter, Piece::Parking, Piece::Unparking] {
        if piece != Piece::Unparking {
            stage.play(piece).await;
        }
        let held = eventually(PATIENCE, || stage.holds(piece)).await;
        assert!(held, "{piece:?} does not come about; said was\n{}", stage.all());
    }
    assert!(stage.world.stack.join("valve-0001").await.is_success());
    expect("the waiting downlink pushed", || stage.world.stack.queue("valve-0001").len() == 1).await;
    assert!(stage.world.functions.wait_idle(PATIENCE).await);
    assert_eq!(stage.refusals(), BTreeSet::new());
}

/// Sees a piece fail, the reason named, and another piece pass meanwhile. Returns the stage for more questions.
async fn fails_without(
    what: &str,
    infra: Infra,
    (piece, control): (Piece, Option<Piece>),
    teller: Teller,
    words: &[&str],
) -> Stage {
    let stage = Stage::open(infra).await;
    stage.play(piece).await;
    let said = eventually(PATIENCE, || stage.said(teller, words)).await;
    assert!(said, "without {what} nobody said {words:?}; said was\n{}", stage.all());
    if let Some(control) = control {
        // By the time that this has come about, the other would have too.
        stage.play(control).await;
        let held = eventually(PATIENCE, || stage.holds(control)).await;
        assert!(held, "without {what} {control:?} does not come about either; said was\n{}", stage.all());
    }
    assert!(!stage.holds(piece), "{piece:?} passes without {what}");
    stage
}

/// Whether a resource is this scope or lies below it.
fn is_within(resource: &str, scope: &str) -> bool {
    resource.strip_prefix(scope).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[tokio::test]
async fn without_any_one_role_a_named_piece_fails_and_that_role_alone_is_missing() {
    let template = template();
    for Loss { role, piece, teller, words, control } in LOSSES {
        let assigned = template.assignments().iter().find(|assigned| name(assigned) == role);
        let assigned = assigned.unwrap_or_else(|| panic!("the template has {role:?}"));
        let what = format!("{role:?}");
        let stage = fails_without(&what, template.without(assigned), (piece, control), teller, words).await;
        let refusals = stage.refusals();
        assert!(!refusals.is_empty(), "without {what} nobody was refused");
        for [missing, principal, resource] in refusals {
            let lost = &assigned.assignment;
            assert_eq!(
                (missing.as_str(), &principal),
                (lost.role.name, &lost.principal),
                "{what}: refused at {resource}"
            );
            assert!(is_within(&resource, &lost.scope), "{what}: refused at {resource}");
        }
        stage.world.shutdown().await;
    }
}

#[tokio::test]
async fn without_device_connect_no_device_session_opens_and_that_right_alone_is_missing() {
    let infra = template().without_policy_right("tts-iot-hub", "DeviceConnect");
    let pieces = (Piece::UnknownDevice, Some(Piece::TwinChange));
    let stage = fails_without("DeviceConnect", infra, pieces, Teller::Bridge, &["its right DeviceConnect"]).await;
    assert_eq!(stage.refusals(), BTreeSet::new());
    stage.world.shutdown().await;
}
