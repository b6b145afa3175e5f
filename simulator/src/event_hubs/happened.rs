//! What an Event Hub tells of the events that it gets.

use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use super::store::{Event, PropertyValue};
use crate::happenings::{Happenings, Kind, bounded};

/// Whom an Event Hub tells, and of what: nobody until it is set.
#[derive(Debug, Default)]
pub(super) struct Teller(OnceLock<(Kind, Happenings)>);

impl Teller {
    /// Sets it, once and for all.
    pub(super) fn set(&self, kind: Kind, happenings: Happenings) {
        self.0.get_or_init(|| (kind, happenings));
    }

    pub(super) fn appended(&self, event_hub: &str, event: &Event) {
        let Some((kind, happenings)) = self.0.get() else { return };
        let text = |name: &str| text(event.properties.get(name));
        let device = text("deviceId").or(event.partition_key.as_deref());
        happenings.note(*kind, device, || {
            let title = match kind {
                Kind::Parked => format!("uplink parked: {}", text("firstFailure").unwrap_or("no reason given")),
                Kind::DeadLetter => format!("dead letter: {}", text("reason").unwrap_or("no reason given")),
                _ => format!("{} → {event_hub}", text("opType").unwrap_or("event")),
            };
            (title, json!({"event_hub": event_hub, "bytes": event.body.len(), "properties": properties(event)}))
        });
    }
}

fn text(value: Option<&PropertyValue>) -> Option<&str> {
    match value {
        Some(PropertyValue::String(text)) => Some(text),
        _ => None,
    }
}

/// The application properties that are text.
fn properties(event: &Event) -> Value {
    let texts = event.properties.iter().filter_map(|(name, value)| Some((name.clone(), json!(text(Some(value))?))));
    bounded(&texts.collect::<Map<_, _>>().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_hubs::Namespace;

    #[test]
    fn an_event_hub_tells_why_a_letter_is_dead() {
        let (namespace, happenings) = (Namespace::new(&[("dead-letters", 1), ("other", 1)]), Happenings::new());
        let hub = |name| namespace.hub(name).expect("it was just made");
        hub("dead-letters").tell(Kind::DeadLetter, happenings.clone());
        let properties = [("reason", "too large"), ("deviceId", "d1")];
        let properties = properties.map(|(name, value)| (name.to_owned(), value.into()));
        let event = Event { properties: properties.into(), ..Event::default() };
        hub("other").append(event.clone());
        hub("dead-letters").append(event);
        let told = happenings.after(0).happenings;
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].device.as_deref(), told[0].title.as_str()), (Some("d1"), "dead letter: too large"));
        assert_eq!(told[0].detail["properties"]["reason"], "too large");
    }
}
