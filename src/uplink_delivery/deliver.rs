//! Carries out the plan of an uplink and says what is left of it.

use std::sync::Arc;

use serde_json::{Map, Value};
use time::OffsetDateTime;
use tokio::time::{Instant, timeout_at};

use super::delivered::{Delivered, Part};
use super::memory::{Memory, Step};
use super::plan::UplinkPlan;
use super::port::{DeviceHub, Failure, Landed};
use super::reported::{DECODED_PAYLOAD, ReportedPlan};
use crate::config::UplinkConfig;
use crate::downlink_trace;
use crate::event_hubs::Open;
use crate::failure::Class;
use crate::ids::DeviceId;
use crate::iot_hub::{Flight, IotHub, Telemetry, TwinAnswer, TwinCall, twin};

/// How often a twin is read again because somebody else wrote to it meanwhile. Each time that other one made progress.
const MAX_READS: usize = 4;

/// Where an uplink comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From its webhook, just now.
    Live,
    /// From where it was parked: newer ones may have passed it.
    Parked,
}

/// Delivers planned uplinks to IoT Hub.
#[derive(Debug)]
pub struct UplinkDelivery<H = IotHub> {
    hub: Arc<H>,
    memory: Memory,
}

/// What [`read_then_patch`](UplinkDelivery::read_then_patch) left.
type Landing = (Option<Result<(), Failure>>, Result<(), Failure>);

impl<H: DeviceHub> UplinkDelivery<H> {
    /// A delivery that remembers nothing yet.
    #[must_use]
    pub fn new(hub: Arc<H>, config: &UplinkConfig) -> Self {
        Self { hub, memory: Memory::new(config.last_seen_interval) }
    }

    /// Delivers what is still open of the plan. Returns by the deadline, whatever the hub does.
    pub async fn deliver(&self, plan: &UplinkPlan, open: Open, origin: Origin, deadline: Instant) -> Delivered {
        let waiting = async {
            let check = open.waiting_downlink && plan.check_waiting_downlink;
            if check { Some(self.ready_waiting_downlink(&plan.device.id, deadline).await) } else { None }
        };
        let (mut delivered, waiting) = tokio::join!(self.fly(plan, open, origin, deadline), waiting);
        if let Some(result) = waiting {
            delivered.note(Part::WaitingDownlink, result);
        }
        delivered
    }

    async fn fly(&self, plan: &UplinkPlan, open: Open, origin: Origin, deadline: Instant) -> Delivered {
        let mut delivered = Delivered::default();
        let telemetry = match plan.telemetry.as_ref().filter(|_| open.telemetry) {
            Some(Ok(telemetry)) => Some(telemetry.clone()),
            Some(Err(too_large)) => {
                let failure = Failure { class: Class::Poison, is_stale: false, reason: too_large.to_string() };
                delivered.note(Part::Telemetry, Err(failure));
                None
            }
            None => None,
        };
        let (telemetry, twin) = match plan.reported.as_ref().filter(|_| open.twin) {
            Some(reported) => self.fly_with_twin(plan, telemetry, reported, origin, deadline).await,
            None => (self.fly_telemetry(plan, telemetry, deadline).await, Ok(())),
        };
        if let Some(result) = telemetry {
            delivered.note(Part::Telemetry, result);
        }
        delivered.note(Part::Twin, twin);
        delivered
    }

    async fn fly_with_twin(
        &self,
        plan: &UplinkPlan,
        telemetry: Option<Telemetry>,
        reported: &ReportedPlan,
        origin: Origin,
        deadline: Instant,
    ) -> Landing {
        if !reported.notes.is_empty() {
            // At debug: the names of keys are the payload's.
            tracing::debug!(device = %plan.device.id, changes = ?reported.notes, "reported values were made to fit the twin");
        }
        let step = match origin {
            Origin::Live => self.memory.begin(&plan.device.id, reported, OffsetDateTime::now_utc()),
            Origin::Parked => Step::ReadFirst,
        };
        match step {
            Step::Nothing => (self.fly_telemetry(plan, telemetry, deadline).await, Ok(())),
            Step::ReadFirst => self.read_then_patch(plan, telemetry, reported, deadline).await,
            Step::Write(patch) => {
                let call = TwinCall::Patch { reported: patch.clone(), if_version: None };
                let (telemetry, answer) = self.fly_once(plan, telemetry, call, deadline).await;
                let twin = match answer.and_then(patched) {
                    Ok(version) => {
                        self.memory.confirm_written(&plan.device.id, reported, &patch, version);
                        Ok(())
                    }
                    Err(failure) => self.make_room(plan, reported, &patch, failure, deadline).await,
                };
                (telemetry, twin)
            }
        }
    }

    /// Sends the message with a read of the twin, then writes what is news to it; again if somebody else wrote meanwhile.
    async fn read_then_patch(
        &self,
        plan: &UplinkPlan,
        mut telemetry: Option<Telemetry>,
        reported: &ReportedPlan,
        deadline: Instant,
    ) -> Landing {
        let mut sent = None;
        for _ in 0..MAX_READS {
            let with_telemetry = telemetry.is_some();
            let (result, answer) = self.fly_once(plan, telemetry.take(), TwinCall::Read, deadline).await;
            if with_telemetry {
                sent = result;
            }
            let (patch, version) = match answer.and_then(read).map(|(known, version)| (news(reported, &known), version))
            {
                Ok((Some(patch), version)) => (patch, version),
                Ok((None, _)) => {
                    self.memory.confirm_read(&plan.device.id, reported);
                    return (sent, Ok(()));
                }
                Err(failure) => return (sent, Err(failure)),
            };
            match self.patch_version(plan, reported, patch.clone(), version, deadline).await {
                Err(failure) if failure.is_stale => {}
                Err(failure) => return (sent, self.make_room(plan, reported, &patch, failure, deadline).await),
                Ok(()) => return (sent, Ok(())),
            }
        }
        (sent, Err(contended(&plan.device.id)))
    }

    /// Patches the version of the twin that was read.
    async fn patch_version(
        &self,
        plan: &UplinkPlan,
        reported: &ReportedPlan,
        patch: Map<String, Value>,
        version: u64,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let call = TwinCall::Patch { reported: patch, if_version: Some(version) };
        let version = self.fly_once(plan, None, call, deadline).await.1.and_then(patched)?;
        if reported.frame.is_none() {
            self.memory.confirm_version(&plan.device.id, version);
        }
        self.memory.confirm_read(&plan.device.id, reported);
        Ok(())
    }

    /// Answers a failure to patch the twin. Reported values merge, so payloads with ever new keys fill a twin until the
    /// hub refuses every patch that grows it. Then what is reported of the payload becomes this message's alone.
    async fn make_room(
        &self,
        plan: &UplinkPlan,
        reported: &ReportedPlan,
        refused: &Map<String, Value>,
        failure: Failure,
        deadline: Instant,
    ) -> Result<(), Failure> {
        if failure.class != Class::Poison || !refused.contains_key(DECODED_PAYLOAD) {
            return Err(failure);
        }
        for _ in 0..MAX_READS {
            let (known, version) = self.fly_once(plan, None, TwinCall::Read, deadline).await.1.and_then(read)?;
            if reported.is_old_news_to(&known) {
                self.memory.confirm_read(&plan.device.id, reported);
                return Ok(());
            }
            let Some(patch) = reported.without_older_payload(&known) else { return Err(failure) };
            let (device, reason) = (plan.device.id.as_str(), failure.reason.as_str());
            tracing::warn!(device, reason, "the twin refused a patch; its decoded payload is reset to this message");
            match self.patch_version(plan, reported, patch, version, deadline).await {
                Err(failure) if failure.is_stale => {}
                result => return result,
            }
        }
        Err(contended(&plan.device.id))
    }

    async fn fly_telemetry(
        &self,
        plan: &UplinkPlan,
        telemetry: Option<Telemetry>,
        deadline: Instant,
    ) -> Option<Result<(), Failure>> {
        let flight = Flight { telemetry: Some(telemetry?), twin: None };
        let landed = self.hub.fly(&plan.device, flight, deadline).await;
        Some(landed.telemetry.unwrap_or_else(|| Err(unanswered("message"))))
    }

    async fn fly_once(
        &self,
        plan: &UplinkPlan,
        telemetry: Option<Telemetry>,
        call: TwinCall,
        deadline: Instant,
    ) -> (Option<Result<(), Failure>>, Result<TwinAnswer, Failure>) {
        let has_telemetry = telemetry.is_some();
        let Landed { telemetry, twin } =
            self.hub.fly(&plan.device, Flight { telemetry, twin: Some(call) }, deadline).await;
        let telemetry = has_telemetry.then(|| telemetry.unwrap_or_else(|| Err(unanswered("message"))));
        (telemetry, twin.unwrap_or_else(|| Err(unanswered("twin request"))))
    }

    /// Makes a downlink ready that waits for the device's session; the forwarder sees the change and pushes it.
    async fn ready_waiting_downlink(&self, device: &DeviceId, deadline: Instant) -> Result<(), Failure> {
        let attempts = async {
            for _ in 0..MAX_READS {
                let Some(twin) = self.hub.twin(device).await? else { return Ok(()) };
                let Some(patch) = downlink_trace::ready_patch(&twin.tags) else { return Ok(()) };
                match self.hub.patch_tags(device, &patch, &twin.etag).await {
                    Err(failure) if failure.is_stale => {}
                    result => return result,
                }
            }
            Err(Failure::passing(format!("the tags of {device} changed under {MAX_READS} attempts to write to them")))
        };
        timeout_at(deadline, attempts).await.unwrap_or_else(|_| {
            Err(Failure::passing(format!("the tags of {device} could not be read and written in time")))
        })
    }
}

/// The patch that brings a message's news to the twin that was read; `None` if it is no news there.
fn news(plan: &ReportedPlan, known: &Map<String, Value>) -> Option<Map<String, Value>> {
    let patch = (!plan.is_old_news_to(known)).then(|| twin::diff(known, &plan.patch))?;
    (!patch.is_empty()).then_some(patch)
}

fn read(answer: TwinAnswer) -> Result<(Map<String, Value>, u64), Failure> {
    match answer {
        TwinAnswer::Read { reported, version } => Ok((reported, version)),
        TwinAnswer::Patched { .. } => Err(unanswered("read")),
    }
}

fn patched(answer: TwinAnswer) -> Result<u64, Failure> {
    match answer {
        TwinAnswer::Patched { version } => Ok(version),
        TwinAnswer::Read { .. } => Err(unanswered("patch")),
    }
}

fn contended(device: &DeviceId) -> Failure {
    Failure::passing(format!("the twin of {device} changed under {MAX_READS} attempts to write to it"))
}

/// The client answers every part that it is asked for; if it ever does not, the part is tried again.
fn unanswered(what: &str) -> Failure {
    Failure::passing(format!("the session ended without an answer to the {what}"))
}
