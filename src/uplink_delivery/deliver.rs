//! Carries out the plan of an uplink and says what is left of it.

use std::sync::Arc;

use time::OffsetDateTime;
use tokio::time::{Instant, timeout_at};

use super::delivered::{Delivered, Part};
use super::memory::{Memory, Step};
use super::plan::UplinkPlan;
use super::port::{DeviceHub, Failure, Landed};
use super::reported::ReportedPlan;
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
                let twin = answer.and_then(patched);
                if twin.is_ok() {
                    self.memory.confirm_written(&plan.device.id, reported, &patch);
                }
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
            let news = match answer.and_then(|answer| news(reported, answer)) {
                Ok(Some(news)) => news,
                Ok(None) => {
                    self.memory.confirm_read(&plan.device.id, reported);
                    return (sent, Ok(()));
                }
                Err(failure) => return (sent, Err(failure)),
            };
            match self.fly_once(plan, None, news, deadline).await.1.and_then(patched) {
                Err(failure) if failure.is_stale => {}
                Err(failure) => return (sent, Err(failure)),
                Ok(()) => {
                    self.memory.confirm_read(&plan.device.id, reported);
                    return (sent, Ok(()));
                }
            }
        }
        let reason = format!("the twin of {} changed under {MAX_READS} attempts to write to it", plan.device.id);
        (sent, Err(Failure::passing(reason)))
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
fn news(plan: &ReportedPlan, answer: TwinAnswer) -> Result<Option<TwinCall>, Failure> {
    let TwinAnswer::Read { reported, version } = answer else { return Err(unanswered("read")) };
    if plan.is_old_news_to(&reported) {
        return Ok(None);
    }
    let patch = twin::diff(&reported, &plan.patch);
    Ok((!patch.is_empty()).then_some(TwinCall::Patch { reported: patch, if_version: Some(version) }))
}

fn patched(answer: TwinAnswer) -> Result<(), Failure> {
    match answer {
        TwinAnswer::Patched { .. } => Ok(()),
        TwinAnswer::Read { .. } => Err(unanswered("patch")),
    }
}

/// The client answers every part that it is asked for; if it ever does not, the part is tried again.
fn unanswered(what: &str) -> Failure {
    Failure::passing(format!("the session ended without an answer to the {what}"))
}
