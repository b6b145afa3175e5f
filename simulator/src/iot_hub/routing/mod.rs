//! Which Event Hub gets an event.
//!
//! | module | idea |
//! |---|---|
//! | `condition`, `functions` | the language of route conditions |
//! | `evaluate` | whether an event matches |
//! | `hub_event` | the events that the hub itself makes |
//! | `delivery` | events told twice, or several as one |
//!
//! Connection state events are not there: real hubs sample the state once a minute, so that the short sessions of a bridge
//! mostly vanish from them (`MicrosoftDocs/azure-docs articles/iot-hub/monitor-device-connection-state.md`), and nobody
//! should build on them.

mod condition;
mod delivery;
mod evaluate;
mod functions;
mod hub_event;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::event_hubs::{Barred, Claim, Event, EventHub, Namespace};
use crate::happenings::{Happenings, Kind};
use condition::Condition;
use delivery::Outbox;
use evaluate::Facts;

pub use delivery::Delivery;
pub(super) use hub_event::{HubEvent, Operation};

/// The Event Hub that plays the built-in endpoint `messages/events`.
pub const BUILT_IN_EVENTS: &str = "iothub-ehub-sim";

/// What a route takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteSource {
    /// Device-to-cloud messages.
    DeviceMessages,
    /// Identities created and deleted.
    DeviceLifecycleEvents,
    /// Twins written.
    TwinChangeEvents,
}

/// A message route.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name.
    pub name: String,
    /// What it takes.
    pub source: RouteSource,
    /// Which of that; empty means all.
    pub condition: String,
    /// Where to.
    pub event_hub: String,
    /// The principal id of the identity that the hub sends with; `None` if it has a key.
    pub sender: Option<String>,
}

/// Why routes cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The condition is not of the language that the simulator knows.
    #[error("route {name}: cannot read the condition `{condition}`")]
    Condition {
        /// The route.
        name: String,
        /// Its condition.
        condition: String,
    },
    /// There is no such Event Hub.
    #[error("route {name}: the namespace has no event hub `{event_hub}`")]
    NoSuchEventHub {
        /// The route.
        name: String,
        /// Its endpoint.
        event_hub: String,
    },
    /// The tier has no room for so many routes.
    #[error("{count} routes are more than the {most} of the tier")]
    TooManyRoutes {
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// The tier has no room for so many endpoints.
    #[error("{count} custom endpoints are more than the {most} of the tier")]
    TooManyEndpoints {
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
}

/// How many routes and endpoints a hub may have
/// (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-devguide-quotas-throttling.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutingLimits {
    /// Most routes.
    pub routes: usize,
    /// Most endpoints beside the built-in one.
    pub endpoints: usize,
}

impl RoutingLimits {
    /// Of every paid tier.
    pub const PAID: Self = Self { routes: 100, endpoints: 10 };
    /// Of the free tier.
    pub const FREE: Self = Self { routes: 5, endpoints: 1 };

    fn check(self, routes: &[Route]) -> Result<(), RouteError> {
        if routes.len() > self.routes {
            return Err(RouteError::TooManyRoutes { count: routes.len(), most: self.routes });
        }
        let endpoints: BTreeSet<_> = routes.iter().map(|route| route.event_hub.as_str()).collect();
        let count = endpoints.into_iter().filter(|endpoint| *endpoint != BUILT_IN_EVENTS).count();
        if count > self.endpoints {
            return Err(RouteError::TooManyEndpoints { count, most: self.endpoints });
        }
        Ok(())
    }
}

struct CompiledRoute {
    name: String,
    source: RouteSource,
    condition: Condition,
    endpoint: Arc<EventHub>,
    sender: Option<String>,
}

/// The routes of a hub.
pub(super) struct Router {
    routes: Vec<CompiledRoute>,
    /// Takes telemetry that matches no route.
    fallback: Option<Arc<EventHub>>,
    /// Knows who may send.
    namespace: Namespace,
    happenings: Happenings,
    outbox: Mutex<Outbox>,
}

/// Reads the twin of a device.
type ReadTwin<'a> = &'a dyn Fn(&str) -> Option<Value>;

impl Router {
    pub(super) fn new(
        routes: Vec<Route>,
        fallback: bool,
        namespace: &Namespace,
        limits: RoutingLimits,
    ) -> Result<Self, RouteError> {
        limits.check(&routes)?;
        let find = |name: &str, event_hub: &str| {
            namespace
                .hub(event_hub)
                .ok_or_else(|| RouteError::NoSuchEventHub { name: name.to_owned(), event_hub: event_hub.to_owned() })
        };
        let fallback = fallback.then(|| find("$fallback", BUILT_IN_EVENTS)).transpose()?;
        let routes = routes.into_iter().map(|Route { name, source, condition, event_hub, sender }| {
            let endpoint = find(&name, &event_hub)?;
            let parsed = Condition::parse(&condition);
            let condition = parsed.ok_or_else(|| RouteError::Condition { name: name.clone(), condition })?;
            Ok(CompiledRoute { name, source, condition, endpoint, sender })
        });
        let (namespace, happenings) = (namespace.clone(), Happenings::default());
        Ok(Self {
            routes: routes.collect::<Result<_, _>>()?,
            fallback,
            namespace,
            happenings,
            outbox: Mutex::default(),
        })
    }

    /// The same routes, which tell of what they drop.
    pub(super) fn telling(self, happenings: Happenings) -> Self {
        Self { happenings, ..self }
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        // No call leaves it half written.
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers in another way from now on. What was held back is told first.
    pub(super) fn set_delivery(&self, delivery: Delivery, read_twin: ReadTwin<'_>) {
        let held = {
            let mut outbox = self.outbox();
            outbox.delivery = delivery;
            outbox.take()
        };
        held.iter().for_each(|held| self.tell(held.event(), read_twin));
    }

    /// Tells of something that the hub did, now or merged with what follows.
    pub(super) fn emit(&self, event: HubEvent<'_>, now: OffsetDateTime, read_twin: ReadTwin<'_>) {
        let (before, event) = self.outbox().hold(event, now);
        before.iter().for_each(|held| self.tell(held.event(), read_twin));
        if let Some(event) = event {
            self.tell((event, now), read_twin);
        }
    }

    fn tell(&self, (event, at): (HubEvent<'_>, OffsetDateTime), read_twin: ReadTwin<'_>) {
        let (source, device_id) = (event.operation.source(), event.device_id);
        self.dispatch(source, event.into_event(at), &|| read_twin(device_id));
    }

    /// Appends the event to the endpoint of each matching route, once per endpoint, or twice if that is switched on.
    /// Telemetry that matches none takes the fallback; anything else that matches none is gone. An endpoint that the hub may not
    /// send to gets nothing, and the fallback does not stand in for it: the event is dropped, and that is told.
    /// `read_twin` reads the twin of the event's device, and is asked only if a condition asks for it.
    pub(super) fn dispatch(&self, source: RouteSource, event: Event, read_twin: &dyn Fn() -> Option<Value>) {
        let times = if self.outbox().delivery == Delivery::Twice { 2 } else { 1 };
        for endpoint in self.endpoints(source, &event, read_twin) {
            for _ in 0..times {
                endpoint.append(event.clone());
            }
        }
    }

    fn endpoints(
        &self,
        source: RouteSource,
        event: &Event,
        read_twin: &dyn Fn() -> Option<Value>,
    ) -> Vec<&Arc<EventHub>> {
        let facts = Facts::new(event, read_twin);
        let mut endpoints: Vec<&Arc<EventHub>> = Vec::new();
        let mut matched = false;
        for route in self.routes.iter().filter(|route| route.source == source) {
            let is_new = !endpoints.iter().any(|known| Arc::ptr_eq(known, &route.endpoint));
            if is_new && facts.meet(&route.condition) {
                matched = true;
                endpoints.extend(self.may_send(route).then_some(&route.endpoint));
            }
        }
        if !matched && source == RouteSource::DeviceMessages {
            endpoints.extend(&self.fallback);
        }
        endpoints
    }

    fn may_send(&self, route: &CompiledRoute) -> bool {
        let Some(sender) = &route.sender else { return true };
        let (name, event_hub) = (&route.name, route.endpoint.name());
        let Err(barred) = self.namespace.permits(sender, Claim::Send, event_hub, None) else { return true };
        tracing::warn!(route = name, event_hub, "an event is dropped: {barred}");
        self.happenings.note(Kind::Refused, None, || {
            let (why, mut detail) = match &barred {
                Barred::Role(denied) => {
                    (format!("the hub's identity lacks {} on {event_hub}", denied.role), denied.detail())
                }
                Barred::BuiltInEndpoint => (barred.to_string(), json!({})),
            };
            detail["route"] = json!(name);
            (format!("route {name}: event dropped, {why}"), detail)
        });
        false
    }
}

/// Whether a condition holds for telemetry with this body, from a device with this twin; `None` if it is no condition.
pub(super) fn try_condition(condition: &str, body: &[u8], twin: &Value) -> Option<bool> {
    let condition = Condition::parse(condition)?;
    let named = |name: &str, value: &str| (name.to_owned(), value.into());
    let event = Event {
        body: body.to_vec().into(),
        system: [named("content-type", "application/json"), named("content-encoding", "utf-8")].into(),
        ..Event::default()
    };
    Some(Facts::new(&event, &|| Some(twin.clone())).meet(&condition))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entra::{Access, Assignment, Role};

    fn route(source: RouteSource, condition: &str, event_hub: &str) -> Route {
        Route { name: "r".into(), source, condition: condition.into(), event_hub: event_hub.into(), sender: None }
    }

    fn namespace() -> Namespace {
        Namespace::new(&[(BUILT_IN_EVENTS, 1), ("a", 1), ("b", 1)])
    }

    fn counts(namespace: &Namespace) -> Vec<usize> {
        [BUILT_IN_EVENTS, "a", "b"].map(|name| namespace.hub(name).expect("it is there").all().len()).to_vec()
    }

    #[test]
    fn an_endpoint_gets_one_copy_and_only_unmatched_telemetry_falls_back() {
        let messages = RouteSource::DeviceMessages;
        for (routes, source, expected) in [
            (vec![], messages, [1, 0, 0]),
            (vec![], RouteSource::TwinChangeEvents, [0, 0, 0]),
            (vec![route(messages, "", "a"), route(messages, "true", "a")], messages, [0, 1, 0]),
            (vec![route(messages, "", "a"), route(messages, "", "b")], messages, [0, 1, 1]),
            (vec![route(messages, "x = 'y'", "a")], messages, [1, 0, 0]),
            (vec![route(RouteSource::TwinChangeEvents, "", "a")], messages, [1, 0, 0]),
        ] {
            let namespace = namespace();
            let router = Router::new(routes, true, &namespace, RoutingLimits::PAID).expect("the routes are valid");
            router.dispatch(source, Event::default(), &|| None);
            assert_eq!(counts(&namespace), expected);
        }
    }

    #[test]
    fn an_event_that_the_hub_may_not_send_is_dropped_and_the_missing_role_told() {
        let sender = Role::find("2b629674-e913-4c01-ae53-ef4638d8f975").expect("Data Sender is known");
        let happenings = Happenings::new();
        let assignment = Assignment { scope: "/ns/eventhubs/a".into(), role: sender, principal: "hub".into() };
        let access = Access::by_roles("/ns", [assignment].into(), happenings.clone());
        let namespace = namespace().guarded_by(access, false);
        let by_identity =
            |endpoint| Route { sender: Some("hub".into()), ..route(RouteSource::DeviceMessages, "", endpoint) };
        let routes = vec![by_identity("a"), by_identity("b")];
        let router = Router::new(routes, true, &namespace, RoutingLimits::PAID).expect("the routes are valid");
        router.telling(happenings.clone()).dispatch(RouteSource::DeviceMessages, Event::default(), &|| None);
        assert_eq!(counts(&namespace), [0, 1, 0], "nor does the fallback stand in");
        let told = happenings.after(0).happenings;
        assert_eq!(told.len(), 1, "each once: {told:?}");
        assert_eq!(told[0].detail["resource"], "/ns/eventhubs/b");
        assert!(told[0].title.contains("Azure Event Hubs Data Sender on b"), "{}", told[0].title);
    }

    #[test]
    fn without_fallback_unmatched_telemetry_is_gone() {
        let namespace = namespace();
        Router::new(vec![], false, &namespace, RoutingLimits::PAID).expect("no route").dispatch(
            RouteSource::DeviceMessages,
            Event::default(),
            &|| None,
        );
        assert_eq!(counts(&namespace), [0, 0, 0]);
    }

    #[test]
    fn routes_that_cannot_work_are_refused() {
        let bad = |condition, hub| {
            let routes = vec![route(RouteSource::DeviceMessages, condition, hub)];
            Router::new(routes, true, &namespace(), RoutingLimits::PAID).err()
        };
        assert!(matches!(bad("a =", "a"), Some(RouteError::Condition { .. })));
        assert!(matches!(bad("", "nowhere"), Some(RouteError::NoSuchEventHub { .. })));
        assert!(Router::new(vec![], true, &Namespace::default(), RoutingLimits::PAID).is_err());
    }

    #[test]
    fn a_tier_has_room_for_so_many_routes_and_endpoints() {
        let routes = |count: usize, endpoints: &[&str]| -> Vec<Route> {
            let endpoint = |n: usize| endpoints[n % endpoints.len()];
            (0..count).map(|n| route(RouteSource::DeviceMessages, "", endpoint(n))).collect()
        };
        let refused = |routes: Vec<Route>, limits| Router::new(routes, true, &namespace(), limits).err();
        let (paid, free) = (RoutingLimits::PAID, RoutingLimits::FREE);
        assert_eq!(refused(routes(100, &["a", "b", BUILT_IN_EVENTS]), paid), None);
        assert_eq!(refused(routes(101, &["a"]), paid), Some(RouteError::TooManyRoutes { count: 101, most: 100 }));
        assert_eq!(refused(routes(5, &["a", BUILT_IN_EVENTS]), free), None);
        assert_eq!(refused(routes(6, &["a"]), free), Some(RouteError::TooManyRoutes { count: 6, most: 5 }));
        assert_eq!(refused(routes(2, &["a", "b"]), free), Some(RouteError::TooManyEndpoints { count: 2, most: 1 }));
    }
}
