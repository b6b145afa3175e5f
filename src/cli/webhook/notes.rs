//! What a person should know of a webhook that is left as it is.

use crate::message_type::MessageType;
use crate::stack::Webhook;

/// The notes, a sentence each.
pub(super) fn of(webhook: &Webhook) -> Vec<String> {
    let mut notes = Vec::new();
    if webhook.paused {
        notes.push("it is paused: The Things Stack sends nothing until you resume it in the Console".to_owned());
    }
    if let Some(since) = &webhook.unhealthy_since {
        let at = if since.is_empty() { String::new() } else { format!(", last at {since}") };
        notes.push(format!(
            "The Things Stack counts it as unhealthy, because requests failed{at}: it may hold messages back for a while, and counts it as healthy again after the first that is answered 2xx"
        ));
    }
    let hidden = hidden(&webhook.field_mask);
    if !hidden.is_empty() {
        notes.push(format!(
            "its field mask hides {}, in whole or in part: what does not arrive stands neither in telemetry nor in the twin. Empty the mask in the Console, or add these paths to it",
            hidden.join(", ")
        ));
    }
    notes
}

/// What the bridge reads and a mask does not wholly let through. An empty mask lets all through.
fn hidden(mask: &[String]) -> Vec<String> {
    if mask.is_empty() {
        return Vec::new();
    }
    let messages = MessageType::ALL.iter().map(|kind| format!("up.{}", kind.key()));
    let needed = ["end_device_ids", "received_at", "correlation_ids"].into_iter().map(str::to_owned).chain(messages);
    let covers = |path: &String, needed: &str| {
        needed.strip_prefix(path.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    needed.filter(|needed| !mask.iter().any(|path| covers(path, needed))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(edit: impl FnOnce(&mut Webhook)) -> Vec<String> {
        let mut webhook = Webhook::default();
        edit(&mut webhook);
        of(&webhook)
    }

    #[test]
    fn nothing_is_said_of_a_webhook_in_order() {
        assert!(notes(|_| ()).is_empty());
        let whole = ["end_device_ids", "received_at", "correlation_ids", "up"].map(str::to_owned);
        assert!(notes(|webhook| webhook.field_mask = whole.into()).is_empty());
    }

    #[test]
    fn a_pause_and_failures_are_told() {
        let told = notes(|webhook| (webhook.paused, webhook.unhealthy_since) = (true, Some("2026-04-11".to_owned())));
        assert!(
            told[0].contains("paused") && told[1].contains("unhealthy") && told[1].contains("2026-04-11"),
            "{told:?}"
        );
    }

    #[test]
    fn a_field_mask_that_hides_what_is_needed_is_told_with_the_paths() {
        let mask = ["end_device_ids.device_id", "received_at", "up.uplink_message", "up.join_accept.session_key_id"];
        let hidden = hidden(&mask.map(str::to_owned));
        assert!(hidden.contains(&"end_device_ids".to_owned()) && hidden.contains(&"up.join_accept".to_owned()));
        assert!(!hidden.contains(&"received_at".to_owned()) && !hidden.contains(&"up.uplink_message".to_owned()));
        let told = notes(|webhook| webhook.field_mask = vec!["received".to_owned()]);
        assert!(told[0].contains("received_at") && told[0].contains("up.service_data"), "{told:?}");
    }
}
