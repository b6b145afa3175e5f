//! Executes the plan of one event.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::decode::{self, Change, HubEvent};
use super::desired::Content;
use super::plan::{Deletion, DownlinkPlan, Plan, Rules, plan_deletion, plan_twin};
use super::scrub;
use super::services::{Service, Services, Special, Trouble};
use super::tally::{Done, Ignored};
use crate::config::EventsTarget;
use crate::downlink_trace::{self, DownlinkMarker, DownlinkState};
use crate::event_hubs::DeadLetter;
use crate::failure::Class;
use crate::functions::Event;
use crate::iot_hub::Twin;
use crate::stack::{Downlink, ROOT_KEYS, Registration};

/// The name of the function in dead letters.
const FUNCTION: &str = "EventHubForwarder";
/// A twin that changes under every one of this many plans is left to the next delivery of the event.
const MAX_PLANS: usize = 8;
/// Reasons stand in twin tags, which hold 8 KB in all.
const MAX_REASON_CHARS: usize = 400;
/// What of an event's application properties a replay needs: no more, because a device may have chosen them.
const KEPT_PROPERTIES: [&str; 5] = ["opType", "deviceId", "hubName", "operationTimestamp", "iothub-message-schema"];

/// Executes plans.
#[derive(Debug)]
pub(super) struct Worker<S> {
    pub(super) services: Arc<S>,
    pub(super) rules: Rules,
    pub(super) target: EventsTarget,
}

/// One event on its way.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) event: Arc<Event>,
    pub(super) hub: HubEvent,
}

impl<S: Services> Worker<S> {
    /// Does what the event asks for. A refusal that no retry can change ends in a dead letter.
    pub(super) async fn handle(&self, task: &Task) -> Result<Vec<Done>, Trouble> {
        let outcome = match (self.target, task.hub.change) {
            (EventsTarget::Package, _) => self.submit(task).await,
            (EventsTarget::Api, Change::Deleted) => self.delete(task).await,
            (EventsTarget::Api, Change::Created | Change::Twin(_)) => self.follow_twin(task).await,
        };
        match outcome {
            Err(trouble) if trouble.class == Class::Poison => {
                self.bury(&task.event, Some(task.hub.device.as_str()), &trouble.text).await?;
                Ok(vec![Done::DeadLettered])
            }
            other => other,
        }
    }

    /// Writes the event to the dead letters, without root keys.
    pub(super) async fn bury(&self, event: &Event, device: Option<&str>, reason: &str) -> Result<(), Trouble> {
        let (body, left_out) = scrub::without_root_keys(&event.body);
        let reason = left_out.map_or_else(|| reason.to_owned(), |why| format!("{reason}; {why}"));
        let kept = KEPT_PROPERTIES.iter().filter_map(|name| Some((*name, event.properties.get(*name)?)));
        let kept = kept.map(|(name, value)| (name, value.clone()));
        // The letter's own device is that of The Things Stack; the hub's may have a prefix.
        let source = decode::text(&event.system_properties, decode::SOURCE);
        let said = [(decode::SOURCE, source), (decode::DEVICE, decode::hub_id(event))];
        let said = said.into_iter().filter_map(|(name, value)| Some((name, json!(value?))));
        let properties = kept.chain(said).map(|(name, value)| (name.to_owned(), value)).collect();
        let device_id = device.map(str::to_owned);
        self.services.dead_letter(&DeadLetter { function: FUNCTION, reason, device_id, body, properties }).await
    }

    /// Whether The Things Stack answers although an event meets what looks like an outage. Of the package nothing can be asked
    /// without an effect.
    pub(super) async fn stack_answers(&self) -> bool {
        match self.target {
            EventsTarget::Api => self.services.stack_answers().await,
            EventsTarget::Package => false,
        }
    }

    async fn submit(&self, task: &Task) -> Result<Vec<Done>, Trouble> {
        if task.hub.change == Change::Deleted && !self.rules.sync_delete {
            return Ok(vec![Done::Ignored(Ignored::DeletionIsOff)]);
        }
        let properties = Value::Object(task.event.properties.clone());
        self.services.submit_event(&task.hub.device, &task.hub.body, &properties).await?;
        Ok(vec![Done::Submitted])
    }

    async fn delete(&self, task: &Task) -> Result<Vec<Done>, Trouble> {
        let id = &task.hub.device;
        let identity = if self.rules.sync_delete { self.services.identity(id).await? } else { None };
        let twin = if identity.is_some() { self.services.twin(id).await? } else { None };
        let now = identity.as_ref().map(|identity| (identity, twin.as_ref()));
        let etag = match plan_deletion(&task.hub, now, &self.rules) {
            Deletion::Ignore(reason) => return Ok(vec![Done::Ignored(reason)]),
            Deletion::InStack => None,
            Deletion::InStackAndHub { etag } => Some(etag),
        };
        self.services.delete(id).await?;
        if let Some(etag) = etag {
            self.services.delete_identity(id, &etag).await?;
        }
        Ok(vec![Done::Deleted])
    }

    /// Plans and acts until nothing is left to do; every plan is made from the twin as it then is.
    async fn follow_twin(&self, task: &Task) -> Result<Vec<Done>, Trouble> {
        let mut done = Vec::new();
        let mut known: Option<Twin> = None;
        let mut tried = false;
        for _ in 0..MAX_PLANS {
            let twin = match known.take() {
                Some(twin) => Some(twin),
                None => self.services.twin(&task.hub.device).await?,
            };
            let Some(twin) = twin else {
                done.push(Done::Ignored(Ignored::Gone));
                return Ok(done);
            };
            let plan = plan_twin(&task.hub, &twin, &self.rules, tried);
            let registers = matches!(plan, Plan::Register { .. } | Plan::RefuseRegistration { .. });
            if let Plan::Ignore(reason) = plan {
                if done.is_empty() {
                    done.push(Done::Ignored(reason));
                }
                return Ok(done);
            }
            match self.act(task, plan, &twin).await {
                Ok((what, after)) => {
                    done.push(what);
                    if !registers {
                        return Ok(done);
                    }
                    tried = true;
                    known = after;
                }
                // Someone else wrote: what is to do may be another thing now.
                Err(trouble) if trouble.is_stale() => {}
                // Refused because the device was deleted meanwhile?
                Err(trouble) if trouble.service == Service::Hub && trouble.class == Class::Poison => {
                    if self.services.twin(&task.hub.device).await?.is_some() {
                        return Err(trouble);
                    }
                    done.push(Done::Ignored(Ignored::Gone));
                    return Ok(done);
                }
                Err(trouble) => return Err(trouble),
            }
        }
        Err(Trouble {
            service: Service::Hub,
            class: Class::Retry,
            outage: false,
            special: Special::No,
            text: format!("the twin of `{}` changes faster than it can be followed", task.hub.device),
        })
    }

    async fn act(&self, task: &Task, plan: Plan, twin: &Twin) -> Result<(Done, Option<Twin>), Trouble> {
        match plan {
            Plan::Register { registration, hash } => self.register(task, &registration, hash, twin).await,
            Plan::RefuseRegistration { reason, hash } => self.refuse_registration(task, &reason, hash, twin).await,
            Plan::Downlink(plan) => self.downlink(task, plan, twin).await.map(|done| (done, None)),
            Plan::RefuseDownlink { reason, version, hash } => {
                let failed = DownlinkMarker { version, hash, state: DownlinkState::Failed, error: Some(cut(&reason)) };
                self.refuse_downlink(task, &reason, failed, twin).await.map(|done| (done, None))
            }
            Plan::Forget => {
                let patch = downlink_trace::no_marker_patch();
                self.services.patch_tags(&task.hub.device, &patch, &twin.etag).await?;
                Ok((Done::Forgotten, None))
            }
            Plan::Ignore(reason) => Ok((Done::Ignored(reason), None)),
        }
    }

    /// The result and the removal of the root keys are one patch: whoever sees `registered` sees no keys.
    async fn register(
        &self,
        task: &Task,
        registration: &Registration,
        hash: String,
        twin: &Twin,
    ) -> Result<(Done, Option<Twin>), Trouble> {
        match self.services.register(registration).await {
            Ok(()) => {}
            Err(trouble) if trouble.class == Class::Poison => {
                return self.refuse_registration(task, &trouble.text, hash, twin).await;
            }
            Err(trouble) => return Err(trouble),
        }
        let now = now();
        let result = json!({"state": "registered", "at": now, "registeredAt": now, "error": null, "hash": hash});
        let mut patch = json!({"stack": {"registration": result}});
        let keys = self.keys_to_remove(twin);
        if !keys.is_empty() {
            patch["lorawan"] = Value::Object(keys.clone());
        }
        let after = match self.services.patch_tags(&task.hub.device, &patch, &twin.etag).await {
            // The tags have no room for the result. The keys leave them even so.
            Err(refused) if refused.class == Class::Poison && !keys.is_empty() => {
                let keys = json!({"lorawan": keys});
                self.services.patch_tags(&task.hub.device, &keys, &twin.etag).await?;
                return Err(refused);
            }
            outcome => outcome?,
        };
        tracing::info!(device = %task.hub.device, "registered in the things stack");
        Ok((Done::Registered, Some(after)))
    }

    fn keys_to_remove(&self, twin: &Twin) -> Map<String, Value> {
        let lorawan = twin.tags.get("lorawan").and_then(Value::as_object);
        let Some(lorawan) = lorawan.filter(|_| !self.rules.keep_root_keys) else { return Map::new() };
        ROOT_KEYS.iter().filter(|key| lorawan.contains_key(**key)).map(|key| ((*key).to_owned(), Value::Null)).collect()
    }

    /// The dead letter first: once the twin says `failed`, no later delivery would write it.
    async fn refuse_registration(
        &self,
        task: &Task,
        reason: &str,
        hash: String,
        twin: &Twin,
    ) -> Result<(Done, Option<Twin>), Trouble> {
        self.bury(&task.event, Some(task.hub.device.as_str()), reason).await?;
        let result = json!({"state": "failed", "at": now(), "error": cut(reason), "hash": hash});
        let patch = json!({"stack": {"registration": result}});
        match self.services.patch_tags(&task.hub.device, &patch, &twin.etag).await {
            Ok(after) => Ok((Done::DeadLettered, Some(after))),
            // The dead letter is written; whoever changed the twin sent an event of their own.
            Err(trouble) if trouble.is_stale() => Ok((Done::DeadLettered, None)),
            Err(trouble) => Err(trouble),
        }
    }

    async fn downlink(&self, task: &Task, plan: DownlinkPlan, twin: &Twin) -> Result<Done, Trouble> {
        let id = &task.hub.device;
        let correlation_id = downlink_trace::correlation_id(id, plan.version);
        let mut marker =
            DownlinkMarker { version: plan.version, hash: plan.hash, state: DownlinkState::Pushing, error: None };
        if plan.interrupted
            && (has_come_back(twin, plan.version) || self.services.is_queued(id, &correlation_id).await?)
        {
            marker.state = DownlinkState::Pushed;
            self.services.patch_tags(id, &downlink_trace::marker_patch(&marker), &twin.etag).await?;
            return Ok(Done::FoundQueued);
        }
        let owned = self.services.patch_tags(id, &downlink_trace::marker_patch(&marker), &twin.etag).await?;
        let (frm_payload, decoded_payload) = match plan.wish.content {
            Content::Bytes(bytes) => (Some(bytes), None),
            Content::Decoded(decoded) => (None, Some(decoded)),
        };
        let (f_port, confirmed) = (plan.wish.f_port, plan.wish.confirmed);
        let downlink = Downlink { f_port, frm_payload, decoded_payload, confirmed, correlation_id };
        let done = match self.services.queue_downlink(id, plan.wish.operation, &downlink).await {
            Ok(()) => {
                marker.state = DownlinkState::Pushed;
                Done::Queued
            }
            Err(trouble) if trouble.special == Special::NoSession => {
                marker.state = DownlinkState::Waiting;
                marker.error = Some(cut(&trouble.text));
                Done::Waiting
            }
            Err(trouble) if trouble.class == Class::Poison => {
                marker.state = DownlinkState::Failed;
                marker.error = Some(cut(&trouble.text));
                return self.refuse_downlink(task, &trouble.text, marker, &owned).await;
            }
            Err(trouble) => return Err(trouble),
        };
        self.settle(task, &marker, owned.etag).await?;
        Ok(done)
    }

    async fn refuse_downlink(
        &self,
        task: &Task,
        reason: &str,
        failed: DownlinkMarker,
        twin: &Twin,
    ) -> Result<Done, Trouble> {
        self.bury(&task.event, Some(task.hub.device.as_str()), reason).await?;
        self.settle(task, &failed, twin.etag.clone()).await?;
        Ok(Done::DeadLettered)
    }

    /// Ends the interrupted downlink of an event that is given up: a later event of the device would push it, weeks after it was
    /// wanted.
    pub(super) async fn give_up(&self, task: &Task, reason: &str) -> Result<(), Trouble> {
        if self.target == EventsTarget::Package || task.hub.change == Change::Deleted {
            return Ok(());
        }
        let Some(twin) = self.services.twin(&task.hub.device).await? else { return Ok(()) };
        match downlink_trace::marker(&twin.tags) {
            Some(marker) if marker.state == DownlinkState::Pushing => {
                let failed = DownlinkMarker { state: DownlinkState::Failed, error: Some(cut(reason)), ..marker };
                self.settle(task, &failed, twin.etag).await
            }
            _ => Ok(()),
        }
    }

    /// Writes how far the downlink came, unless the twin speaks of another downlink by now.
    async fn settle(&self, task: &Task, marker: &DownlinkMarker, mut etag: String) -> Result<(), Trouble> {
        let id = &task.hub.device;
        let patch = downlink_trace::marker_patch(marker);
        let mut stale = None;
        for _ in 0..MAX_PLANS {
            match self.services.patch_tags(id, &patch, &etag).await {
                Ok(_) => return Ok(()),
                Err(trouble) if trouble.is_stale() => stale = Some(trouble),
                Err(trouble) => return Err(trouble),
            }
            let Some(twin) = self.services.twin(id).await? else { return Ok(()) };
            match downlink_trace::marker(&twin.tags) {
                Some(other) if (other.version, &other.hash) != (marker.version, &marker.hash) => return Ok(()),
                _ => etag = twin.etag,
            }
        }
        stale.map_or(Ok(()), Err)
    }
}

/// Whether the device's reported properties already tell of the downlink of this version. A failed one was perhaps never queued.
fn has_come_back(twin: &Twin, version: u64) -> bool {
    twin.reported.get("downlink").is_some_and(|downlink| {
        downlink["version"].as_u64() == Some(version) && downlink["state"] != "failed" && downlink["state"] != "waiting"
    })
}

fn cut(reason: &str) -> String {
    reason.chars().take(MAX_REASON_CHARS).collect()
}

fn now() -> String {
    // RFC 3339 has no year beyond 9999: the only way this can fail.
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}
