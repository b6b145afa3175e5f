use time::macros::datetime;

use super::*;

const NOW: OffsetDateTime = datetime!(2026-03-01 09:00 UTC);

fn request(id: &str) -> IdentityRequest {
    let body = json!({"deviceId": id}).to_string();
    IdentityRequest::parse(id, body.as_bytes()).expect("it is a valid identity")
}

fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.put("d1", request("d1"), None, NOW).expect("it is new");
    registry
}

fn code<T>(result: Result<T, HubError>) -> Option<Code> {
    result.err().map(|error| error.code)
}

#[test]
fn a_put_without_precondition_only_creates() {
    let mut registry = registry();
    let before = registry.known("d1").expect("it is there").identity();
    assert_eq!(code(registry.put("d1", request("d1"), None, NOW)), Some(Code::DeviceAlreadyExists));
    assert_eq!(registry.known("d1").expect("it is there").identity(), before);
}

#[test]
fn a_put_with_precondition_only_updates_and_mints_new_keys() {
    let mut registry = registry();
    let keys = |registry: &Registry| registry.known("d1").expect("it is there").keys().collect::<Vec<_>>();
    let (before, etag) = (keys(&registry), registry.known("d1").expect("it is there").etag.clone());
    let stale = IfMatch::Etag("stale".into());
    assert_eq!(code(registry.put("d2", request("d2"), Some(&IfMatch::Any), NOW)), Some(Code::DeviceNotFound));
    assert_eq!(code(registry.put("d1", request("d1"), Some(&stale), NOW)), Some(Code::PreconditionFailed));
    assert_eq!(keys(&registry), before);
    assert_eq!(registry.put("d1", request("d1"), Some(&IfMatch::Etag(etag)), NOW), Ok(Put::Updated));
    assert_ne!(keys(&registry), before);
}

#[test]
fn a_delete_needs_a_precondition_that_holds() {
    let mut registry = registry();
    assert_eq!(code(registry.delete("d1", None)), Some(Code::PreconditionFailed));
    let stale = IfMatch::Etag("stale".into());
    assert_eq!(code(registry.delete("d1", Some(&stale))), Some(Code::PreconditionFailed));
    assert_eq!(code(registry.delete("d1", Some(&IfMatch::Any))), None);
    assert_eq!(code(registry.delete("d1", Some(&IfMatch::Any))), Some(Code::DeviceNotFound));
}

#[test]
fn two_lives_of_one_id_have_two_generations() {
    let mut registry = registry();
    let first = registry.delete("d1", Some(&IfMatch::Any)).expect("it is there").generation_id;
    registry.put("d1", request("d1"), None, NOW).expect("it is new");
    assert_ne!(registry.known("d1").expect("it is there").generation_id, first);
}

#[test]
fn preconditions_are_read_quoted_and_bare() {
    for header in ["*", "\"*\"", " * "] {
        assert_eq!(IfMatch::parse(header), IfMatch::Any, "{header}");
    }
    for header in ["AAAAAAAAAAE=", "\"AAAAAAAAAAE=\""] {
        assert_eq!(IfMatch::parse(header), IfMatch::Etag("AAAAAAAAAAE=".into()), "{header}");
    }
}

#[test]
fn a_list_has_as_many_as_asked_for_or_a_thousand() {
    let mut registry = registry();
    registry.put("d2", request("d2"), None, NOW).expect("it is new");
    for (top, length) in [(None, 2), (Some(1), 1), (Some(0), 2), (Some(1001), 2)] {
        assert_eq!(registry.list(top).len(), length, "{top:?}");
    }
}
