//! What a person should know of a webhook that is left as it is.

use super::plan::{SECRET_HEADER, values};
use crate::message_type::MessageType;
use crate::stack::{FoundWebhook, Webhook};

/// The notes, a sentence each.
pub(super) fn of(found: &FoundWebhook, is_secret_given: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if !is_secret_given {
        let has_one = |webhook: &Webhook| values(&webhook.headers, SECRET_HEADER).next().is_some();
        let what = if found.webhook.as_ref().is_some_and(has_one) { "stays as it is" } else { "is not set" };
        notes.push(format!(
            "WEBHOOK_SECRET is not given: the header {SECRET_HEADER} {what}. If the app has that setting, give it here too, or every webhook is refused"
        ));
    }
    if !found.unread.is_empty() {
        notes.push(format!(
            "this version of The Things Stack does not know {}: not looked at, and not set",
            found.unread.join(", ")
        ));
    }
    if let Some(webhook) = &found.webhook {
        notes.extend(of_webhook(webhook));
    }
    notes
}

fn of_webhook(webhook: &Webhook) -> Vec<String> {
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
    use secrecy::SecretString;

    use super::*;

    fn notes(edit: impl FnOnce(&mut Webhook)) -> Vec<String> {
        let mut webhook = Webhook::default();
        edit(&mut webhook);
        of(&found(Some(webhook)), true)
    }

    fn found(webhook: Option<Webhook>) -> FoundWebhook {
        FoundWebhook { webhook, types: &MessageType::ALL, unread: Vec::new() }
    }

    #[test]
    fn a_secret_that_is_not_given_is_told_with_what_becomes_of_its_header() {
        let header = |name: &str| [(name.to_owned(), SecretString::from("s3cret"))].into();
        for (webhook, told) in [
            (None, "X-Webhook-Secret is not set"),
            (Some(Webhook { headers: header("Authorization"), ..Webhook::default() }), "X-Webhook-Secret is not set"),
            (Some(Webhook { headers: header("x-webhook-secret"), ..Webhook::default() }), "Secret stays as it is"),
        ] {
            assert!(of(&found(webhook.clone()), true).is_empty());
            let notes = of(&found(webhook), false);
            assert!(notes[0].contains(told) && notes[0].contains("give it here too"), "{notes:?}");
        }
    }

    #[test]
    fn what_the_server_does_not_know_is_told() {
        let notes = of(&FoundWebhook { unread: vec!["paused", "uplink_normalized"], ..found(None) }, true);
        assert!(notes[0].contains("does not know paused, uplink_normalized"), "{notes:?}");
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
