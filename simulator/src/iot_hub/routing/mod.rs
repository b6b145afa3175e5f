//! Which Event Hub gets an event.

mod condition;
mod evaluate;
mod hub_event;

use std::sync::Arc;

use crate::event_hubs::{Event, EventHub, Namespace};
use condition::Condition;
use evaluate::Facts;

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
}

struct CompiledRoute {
    source: RouteSource,
    condition: Condition,
    endpoint: Arc<EventHub>,
}

/// The routes of a hub.
pub(super) struct Router {
    routes: Vec<CompiledRoute>,
    /// Takes telemetry that matches no route.
    fallback: Option<Arc<EventHub>>,
}

impl Router {
    pub(super) fn new(routes: Vec<Route>, fallback: bool, namespace: &Namespace) -> Result<Self, RouteError> {
        let find = |name: &str, event_hub: &str| {
            namespace
                .hub(event_hub)
                .ok_or_else(|| RouteError::NoSuchEventHub { name: name.to_owned(), event_hub: event_hub.to_owned() })
        };
        let fallback = fallback.then(|| find("$fallback", BUILT_IN_EVENTS)).transpose()?;
        let routes = routes.into_iter().map(|Route { name, source, condition, event_hub }| {
            let endpoint = find(&name, &event_hub)?;
            let condition = Condition::parse(&condition).ok_or(RouteError::Condition { name, condition })?;
            Ok(CompiledRoute { source, condition, endpoint })
        });
        Ok(Self { routes: routes.collect::<Result<_, _>>()?, fallback })
    }

    /// Appends the event to the endpoint of each matching route, once per endpoint.
    /// Telemetry that matches none takes the fallback; anything else that matches none is gone.
    pub(super) fn dispatch(&self, source: RouteSource, event: Event) {
        let facts = Facts::new(&event);
        let mut endpoints: Vec<&Arc<EventHub>> = Vec::new();
        for route in self.routes.iter().filter(|route| route.source == source) {
            let is_new = !endpoints.iter().any(|known| Arc::ptr_eq(known, &route.endpoint));
            if is_new && facts.meet(&route.condition) {
                endpoints.push(&route.endpoint);
            }
        }
        if endpoints.is_empty() && source == RouteSource::DeviceMessages {
            endpoints.extend(&self.fallback);
        }
        for endpoint in endpoints {
            endpoint.append(event.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(source: RouteSource, condition: &str, event_hub: &str) -> Route {
        Route { name: "r".into(), source, condition: condition.into(), event_hub: event_hub.into() }
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
            let router = Router::new(routes, true, &namespace).expect("the routes are valid");
            router.dispatch(source, Event::default());
            assert_eq!(counts(&namespace), expected);
        }
    }

    #[test]
    fn without_fallback_unmatched_telemetry_is_gone() {
        let namespace = namespace();
        Router::new(vec![], false, &namespace)
            .expect("no route")
            .dispatch(RouteSource::DeviceMessages, Event::default());
        assert_eq!(counts(&namespace), [0, 0, 0]);
    }

    #[test]
    fn routes_that_cannot_work_are_refused() {
        let bad = |condition, hub| {
            Router::new(vec![route(RouteSource::DeviceMessages, condition, hub)], true, &namespace()).err()
        };
        assert!(matches!(bad("a =", "a"), Some(RouteError::Condition { .. })));
        assert!(matches!(bad("", "nowhere"), Some(RouteError::NoSuchEventHub { .. })));
        assert!(Router::new(vec![], true, &Namespace::default()).is_err());
    }
}
