//! The acts of the story. Each does what a person or a device would do, and waits until it shows at the other end.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::{Map, Value, json};

use super::corpus::Corpus;
use super::story::Story;
use crate::eventually::eventually;
use crate::fixtures;
use crate::iot_hub;
use crate::service_client::ServiceClient;
use crate::stack::{LocalDevice, WebhookAnswer};
use crate::world::{DEAD_LETTERS, PARKED_UPLINKS, StartError, World};

/// How long something may take to show at the other end.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many webhooks are under way at once.
const CONCURRENCY: usize = 16;

/// Devices made in the Console of The Things Stack.
const FROM_THE_STACK: [&str; 3] = ["probe-console-1", "valve-console-2", "tracker-console-3"];

/// Devices made in IoT Hub.
const FROM_THE_HUB: [&str; 3] = ["meter-portal-1", "valve-portal-2", "door-portal-3"];

/// Waits for the downlinks' way back: set before the first join.
const WAITS_FOR_JOIN: &str = FROM_THE_HUB[0];

/// Names no device in the webhook's URL: the body does.
const BY_BODY: &str = "";

/// One line of what must hold at the end.
pub(super) type Missing = String;

/// The world with its players, and what they found missing.
pub(super) struct Stage<'a> {
    world: &'a World,
    service: ServiceClient,
    pub(super) missing: Vec<Missing>,
    /// Bodies that were answered as delivered and must be in the hub byte for byte.
    pub(super) delivered: BTreeSet<Vec<u8>>,
    pub(super) payloads: u64,
    pub(super) parked_on_the_way: u64,
}

impl<'a> Stage<'a> {
    pub(super) fn new(world: &'a World) -> Result<Self, StartError> {
        let service = ServiceClient::operator(world)?;
        Ok(Self { world, service, missing: vec![], delivered: BTreeSet::new(), payloads: 0, parked_on_the_way: 0 })
    }

    async fn expect(&mut self, what: impl Into<Missing>, condition: impl FnMut() -> bool) {
        if !eventually(PATIENCE, condition).await {
            self.missing.push(what.into());
        }
    }

    fn check(&mut self, what: impl Into<Missing>, holds: bool) {
        if !holds {
            self.missing.push(what.into());
        }
    }

    /// A device twin as the service sees it.
    fn twin(world: &World, id: &str) -> Value {
        world.iot_hub.twin(id).unwrap_or_default()
    }

    pub(super) async fn devices(&mut self, story: &mut Story) -> Result<(), StartError> {
        let world = self.world;
        story.scene("Devices come from both sides");
        for (number, id) in FROM_THE_STACK.iter().enumerate() {
            world.stack.register_local(&LocalDevice::otaa(id, 1000 + number as u32))?;
            let answer = world.stack.join(id).await;
            self.check(format!("the join of {id} was answered {:?}", answer.status), answer.is_success());
        }
        self.expect("the devices of The Things Stack exist in the hub", || {
            let ids = world.iot_hub.device_ids();
            FROM_THE_STACK.iter().all(|id| ids.iter().any(|known| known == id))
        })
        .await;
        story.tell(format_args!(
            "{} joined in The Things Stack; the bridge created them in IoT Hub",
            FROM_THE_STACK.join(", ")
        ));

        for (number, id) in FROM_THE_HUB.iter().enumerate() {
            let tags = json!({"lorawan": {
                "devEui": format!("70B3D57ED2{number:06X}"),
                "joinEui": "0000000000000001",
                "lorawanVersion": "1.0.3",
                "regionalParametersVersion": "1.0.3-a",
                "appKey": format!("{:032X}", 0xA0 + number),
                "frequencyPlanId": "EU_863_870_TTN",
                "versionIdentifiers": {"brandId": "acme-sensors", "modelId": "probe-x", "hardwareVersion": "1.0",
                    "firmwareVersion": "1.0", "bandId": "EU_863_870"},
            }});
            self.service.create_device(id, &tags).await?;
        }
        for id in FROM_THE_HUB {
            self.expect(format!("{id} is registered in The Things Stack and its twin says so"), || {
                Self::twin(world, id)["tags"]["stack"]["registration"]["state"] == "registered"
            })
            .await;
            let keys = &Self::twin(world, id)["tags"]["lorawan"]["appKey"];
            self.check(format!("the root key of {id} is gone from its tags"), keys.is_null());
        }
        story.tell(format_args!(
            "{} were made in IoT Hub; the bridge registered them and took the root keys out of the tags",
            FROM_THE_HUB.join(", ")
        ));
        Ok(())
    }

    pub(super) async fn waiting_downlink(&mut self, story: &mut Story) -> Result<(), StartError> {
        let world = self.world;
        story.scene("A desired property set before the first join waits for it");
        self.service.patch_desired(WAITS_FOR_JOIN, &json!({"decodedPayload": {"interval": 10}})).await?;
        let state = || Self::twin(world, WAITS_FOR_JOIN)["tags"]["stack"]["downlink"]["state"].clone();
        self.expect("the downlink before the join waits", || state() == "waiting").await;
        let answer = world.stack.join(WAITS_FOR_JOIN).await;
        self.check("the join was acknowledged", answer.is_success());
        self.expect("the waiting downlink is pushed on the join", || state() == "pushed").await;
        self.transmit(WAITS_FOR_JOIN, "sent").await;
        story.tell(format_args!("{WAITS_FOR_JOIN}: waiting → joined → pushed → sent"));
        for id in FROM_THE_HUB.iter().skip(1) {
            let answer = world.stack.join(id).await;
            self.check(format!("the join of {id} was acknowledged"), answer.is_success());
        }
        Ok(())
    }

    /// Transmits the next downlink of a device and waits until its twin reports this outcome.
    async fn transmit(&mut self, id: &str, outcome: &str) {
        let world = self.world;
        self.expect(format!("a downlink for {id} is queued"), || !world.stack.queue(id).is_empty()).await;
        let answers = world.stack.transmit(id).await;
        self.check(
            format!("what became of the downlink of {id} was acknowledged"),
            answers.iter().all(WebhookAnswer::is_success),
        );
        self.expect(format!("the twin of {id} reports the downlink as {outcome}"), || {
            Self::twin(world, id)["properties"]["reported"]["downlink"]["state"] == outcome
        })
        .await;
    }

    pub(super) async fn message_types(&mut self, story: &mut Story) -> Result<(), StartError> {
        story.scene("Messages of all eleven types, and nasty payloads");
        let fixtures: Vec<_> = fixtures::webhooks().into_iter().chain(fixtures::nasty()).collect();
        for fixture in &fixtures {
            let body = fixture.of_application(self.world.application_id());
            let answer = self.world.stack.send_raw(body.as_bytes(), BY_BODY).await;
            // A session key is taken out on the way: that body arrives changed, on purpose.
            let is_whole = !body.contains("\"app_s_key\"");
            self.account(&format!("fixture {}", fixture.name), is_whole.then_some(body.as_bytes()), &answer);
        }
        story.tell(format_args!("{} messages were played as The Things Stack sends them", fixtures.len()));

        let unknown = json!({
            "end_device_ids": {"device_id": FROM_THE_STACK[0], "application_ids": {"application_id": self.world.application_id()}},
            "uplink_of_tomorrow": {"f_port": 1},
        });
        let answer = self.world.stack.send_raw(unknown.to_string().as_bytes(), BY_BODY).await;
        self.check("a message type of tomorrow is ignored and counted", outcome(&answer).as_deref() == Some("ignored"));
        let again =
            fixtures.first().map(|fixture| fixture.of_application(self.world.application_id())).unwrap_or_default();
        for _ in 0..2 {
            let answer = self.world.stack.send_raw(again.as_bytes(), BY_BODY).await;
            let is_duplicate = outcome(&answer).as_deref() == Some("duplicate");
            self.check("the same webhook again has no second effect", is_duplicate);
        }
        story.tell("one type of tomorrow was ignored; one webhook came three times and had one effect");
        Ok(())
    }

    /// Remembers what a webhook's answer promises.
    fn account(&mut self, what: &str, body: Option<&[u8]>, answer: &WebhookAnswer) {
        match outcome(answer).as_deref() {
            Some("delivered") => self.delivered.extend(body.map(<[u8]>::to_vec)),
            Some("parked") => self.parked_on_the_way += 1,
            outcome => self.missing.push(format!("{what} was answered {:?} {outcome:?}", answer.status)),
        }
    }

    pub(super) async fn uplinks(&mut self, story: &mut Story, count: usize) -> Result<(), StartError> {
        story.scene("A day of uplinks");
        let world = self.world;
        let ids: Vec<_> = FROM_THE_STACK.iter().chain(&FROM_THE_HUB).copied().collect();
        let bar = story.progress(count);
        let answers: Vec<_> = futures::stream::iter(0..count)
            .map(|number| {
                let id = ids[number % ids.len()];
                let payload =
                    json!({"temperature": 20.0 + (number % 50) as f64 / 10.0, "battery": 97, "counter": number});
                let bar = bar.clone();
                async move {
                    let answer = world.stack.uplink(id, 2, Some(payload)).await;
                    bar.inc(1);
                    answer
                }
            })
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        bar.finish_and_clear();
        let delivered = answers.iter().filter(|answer| outcome(answer).as_deref() == Some("delivered")).count();
        self.parked_on_the_way +=
            answers.iter().filter(|answer| outcome(answer).as_deref() == Some("parked")).count() as u64;
        let slowest = answers.iter().map(|answer| answer.took).max().unwrap_or_default();
        self.check("every uplink was acknowledged", answers.iter().all(WebhookAnswer::is_success));
        story.tell(format_args!(
            "{count} uplinks of {} devices, {delivered} delivered at once, the slowest answer after {} ms",
            ids.len(),
            slowest.as_millis()
        ));
        Ok(())
    }

    pub(super) async fn payloads(&mut self, story: &mut Story, corpus: &Corpus) -> Result<(), StartError> {
        if corpus.is_empty() {
            return Ok(());
        }
        story.scene("Decoded payloads of real codecs");
        for (number, (id, payloads)) in corpus.iter().enumerate() {
            self.world.stack.register_local(&LocalDevice::otaa(id, 2000 + number as u32))?;
            self.world.stack.join(id).await;
            for payload in payloads {
                self.payloads += 1;
                let decoded = Value::Object(payload.decoded_payload.clone());
                let uplink = self.world.stack.compose_uplink(id, payload.f_port, Some(decoded)).unwrap_or_default();
                let body = uplink.to_string().into_bytes();
                let answer = self.world.stack.send_raw(&body, id).await;
                self.account(&format!("a payload of {id}"), Some(&body), &answer);
            }
            self.check_reported(id, payloads.iter().map(|payload| &payload.decoded_payload));
        }
        story.tell(format_args!("{} payloads of {} codecs are in the reported twins", self.payloads, corpus.len()));
        Ok(())
    }

    /// The twin holds the last value of every key that needs no rewriting.
    fn check_reported<'p>(&mut self, id: &str, payloads: impl Iterator<Item = &'p Map<String, Value>>) {
        let mut last = Map::new();
        for payload in payloads {
            last.extend(payload.clone());
        }
        let reported = &Self::twin(self.world, id)["properties"]["reported"]["decodedPayload"];
        let plain = |key: &str| key.bytes().all(|b| b.is_ascii_alphanumeric());
        for (key, value) in last.iter().filter(|(key, value)| plain(key) && !value.is_object() && !value.is_array()) {
            let legal = value.as_str().is_none_or(|text| text.len() <= 4096);
            if legal && !same_value(&reported[key], value) {
                self.missing.push(format!("the twin of {id} holds {} for `{key}`, sent was {value}", reported[key]));
            }
        }
    }

    pub(super) async fn downlinks(&mut self, story: &mut Story) -> Result<(), StartError> {
        story.scene("Desired properties become downlinks, and their outcome comes back");
        let raw =
            json!({"rawDownlink": {"fPort": 15, "framePayload": "BEEF", "confirmed": true, "operation": "replace"}});
        self.service.patch_desired(FROM_THE_HUB[1], &raw).await?;
        self.transmit(FROM_THE_HUB[1], "acknowledged").await;
        story.tell(format_args!("{}: rawDownlink → queued → sent → acknowledged", FROM_THE_HUB[1]));
        self.service.patch_desired(FROM_THE_HUB[2], &json!({"decodedPayload": {"valve": "open"}})).await?;
        self.transmit(FROM_THE_HUB[2], "sent").await;
        story.tell(format_args!("{}: decodedPayload → queued → sent", FROM_THE_HUB[2]));
        Ok(())
    }

    pub(super) async fn outage(&mut self, story: &mut Story) -> Result<(), StartError> {
        const UPLINKS: usize = 4;
        story.scene("IoT Hub falls silent");
        let world = self.world;
        // What is under way to the service API when the hub falls silent waits for a minute; the story would wait too.
        let idle = world.functions.wait_idle(PATIENCE).await;
        self.check("nothing is under way before the outage", idle);
        world.iot_hub.set_fault(iot_hub::Fault::Silent);
        let payload = |number: usize| Some(json!({"outage": number}));
        let answers: Vec<_> = futures::future::join_all(
            (0..UPLINKS)
                .map(|number| world.stack.uplink(FROM_THE_STACK[number % FROM_THE_STACK.len()], 3, payload(number))),
        )
        .await;
        world.iot_hub.set_fault(iot_hub::Fault::None);
        let parked = answers.iter().filter(|answer| outcome(answer).as_deref() == Some("parked")).count();
        self.parked_on_the_way += parked as u64;
        self.check("uplinks of the outage are parked", parked == UPLINKS);
        let slowest = answers.iter().map(|answer| answer.took).max().unwrap_or_default();
        story.tell(format_args!("{parked} uplinks were parked, the slowest answer after {} ms", slowest.as_millis()));
        self.expect("what was parked is delivered after the outage", || {
            world.functions.lag_at(PARKED_UPLINKS) == Some(0)
        })
        .await;
        story.tell("the hub is back; ParkedUplinks delivered what had waited");
        Ok(())
    }

    pub(super) async fn dead_letter(&mut self, story: &mut Story) -> Result<(), StartError> {
        let id = FROM_THE_STACK[2];
        story.scene("What never can be delivered is dead-lettered, not refused");
        self.service.set_enabled(id, false).await?;
        let answer = self.world.stack.uplink(id, 2, Some(json!({"lost": true}))).await;
        let outcome = outcome(&answer);
        self.check(
            format!("an uplink of a disabled device is dead-lettered, not {outcome:?}"),
            outcome.as_deref() == Some("dead_lettered"),
        );
        story.tell(format_args!("{id} was disabled in IoT Hub: its uplink is in {DEAD_LETTERS} with the reason"));
        Ok(())
    }

    pub(super) async fn deletion(&mut self, story: &mut Story) -> Result<(), StartError> {
        let world = self.world;
        story.scene("A device is deleted in IoT Hub");
        let id = FROM_THE_HUB[2];
        self.service.delete_device(id).await?;
        self.expect(format!("{id} is gone from The Things Stack"), || world.stack.counters().deleted >= 1).await;
        story.tell(format_args!("{id} is gone from all four registries of The Things Stack"));
        Ok(())
    }

    /// Waits until nothing is under way any more.
    pub(super) async fn settle(&mut self, story: &mut Story) -> bool {
        let idle = self.world.functions.wait_idle(PATIENCE).await;
        self.check("every event is done with", idle);
        story.scene("Everything comes to rest");
        story.tell(if idle { "every Event Hub is read to its end" } else { "some events are still under way" });
        idle
    }
}

/// Equal as the twin shows numbers: 21 and 21.0 are one value.
fn same_value(left: &Value, right: &Value) -> bool {
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left == right,
        _ => left == right,
    }
}

/// The member `outcome` of a 2xx answer.
fn outcome(answer: &WebhookAnswer) -> Option<String> {
    let body: Value = serde_json::from_slice(&answer.body).ok().filter(|_| answer.is_success())?;
    body["outcome"].as_str().map(str::to_owned)
}
