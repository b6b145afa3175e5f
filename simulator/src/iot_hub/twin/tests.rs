use proptest::prelude::*;
use time::macros::datetime;

use super::*;

const AT: OffsetDateTime = datetime!(2026-03-01 09:00:00.5 UTC);

fn twin() -> Twin {
    Twin::new(AT)
}

fn write(body: Value) -> ServiceWrite {
    ServiceWrite::parse(&body).expect("it is a twin document")
}

/// A section without what the hub adds.
fn plain(section: &Value) -> Value {
    let mut section = section.clone();
    let object = section.as_object_mut().expect("a section is an object");
    object.retain(|key, _| !key.starts_with('$'));
    section
}

#[test]
fn a_new_twin_is_as_documented() {
    let twin = twin();
    assert_eq!((twin.etag().as_str(), twin.version()), ("AAAAAAAAAAE=", 2));
    let section = json!({"$metadata": {"$lastUpdated": "2026-03-01T09:00:00.5Z"}, "$version": 1});
    let service = Value::from(twin.for_service());
    assert_eq!(service, json!({"properties": {"desired": section, "reported": section}}));
}

#[test]
fn a_device_sees_neither_tags_nor_metadata() {
    let mut twin = twin();
    twin.patch(write(json!({"tags": {"secret": 1}, "properties": {"desired": {"a": 1}}})), AT).expect("it is fine");
    assert_eq!(twin.for_device(), json!({"desired": {"a": 1, "$version": 2}, "reported": {"$version": 1}}));
}

#[test]
fn a_service_write_moves_etag_and_version_and_makes_one_event() {
    let mut twin = twin();
    let body = json!({"tags": {"ttn": {"app": "barn"}}, "properties": {"desired": {"interval": 600}}});
    let changed = twin.patch(write(body), AT).expect("it is fine");
    let stamp = json!({"$lastUpdated": "2026-03-01T09:00:00.5Z", "$lastUpdatedVersion": 2});
    let mut metadata = stamp.clone();
    metadata["interval"] = stamp;
    let desired = json!({"interval": 600, "$metadata": metadata, "$version": 2});
    let event = json!({"version": 3, "tags": {"ttn": {"app": "barn"}}, "properties": {"desired": desired}});
    assert_eq!(changed, Changed { event, desired: Some((2, json!({"interval": 600, "$version": 2}))) });
    assert_eq!(twin.etag(), "AAAAAAAAAAI=");
}

#[test]
fn tags_alone_leave_the_desired_version_and_tell_the_device_nothing() {
    let mut twin = twin();
    let changed = twin.patch(write(json!({"tags": {"a": 1}})), AT).expect("it is fine");
    assert_eq!(changed, Changed { event: json!({"version": 3, "tags": {"a": 1}}), desired: None });
    assert_eq!(twin.desired.version(), 1);
}

#[test]
fn a_service_write_never_changes_reported_properties() {
    let mut twin = twin();
    twin.report(&json!({"battery": 87}), AT).expect("it is fine");
    let before = twin.reported.for_service();
    let body = json!({"tags": {}, "properties": {"desired": {"x": 1}, "reported": {"battery": 1, "$version": 99}}});
    twin.patch(write(body.clone()), AT).expect("it is fine");
    twin.replace(write(body), AT).expect("it is fine");
    assert_eq!(twin.reported.for_service(), before);
}

#[test]
fn a_report_moves_the_version_but_not_the_etag() {
    let mut twin = twin();
    let changed = twin.report(&json!({"battery": 87}), AT).expect("it is fine");
    let stamp = json!({"$lastUpdated": "2026-03-01T09:00:00.5Z"});
    let mut metadata = stamp.clone();
    metadata["battery"] = stamp;
    let reported = json!({"battery": 87, "$metadata": metadata, "$version": 2});
    assert_eq!(changed.event, json!({"version": 3, "properties": {"reported": reported}}));
    assert_eq!((changed.desired, twin.etag().as_str()), (None, "AAAAAAAAAAE="));
}

#[test]
fn the_same_report_again_bumps_the_version() {
    let mut twin = twin();
    for version in 2..5 {
        twin.report(&json!({"battery": 87}), AT).expect("it is fine");
        assert_eq!(twin.reported_version(), version);
    }
}

#[test]
fn a_patch_with_a_refused_key_changes_nothing() {
    let mut twin = twin();
    twin.report(&json!({"good": 1}), AT).expect("it is fine");
    let (before, version) = (Value::from(twin.for_service()), twin.version());
    for patch in [
        json!({"good": 2, "bad.key": 1}),
        json!({"good": 2, "$version": 1}),
        json!({"good": 2, "deep": {"er": [{"x": null}]}}),
        json!({"good": 2, "big": "x".repeat(5000)}),
        json!([1]),
        json!("text"),
        json!(null),
    ] {
        twin.report(&patch, AT).expect_err("it breaks a rule");
    }
    let body = json!({"tags": {"fine": 1}, "properties": {"desired": {"not fine": 1}}});
    twin.patch(write(body.clone()), AT).expect_err("it breaks a rule");
    twin.replace(write(body), AT).expect_err("it breaks a rule");
    assert_eq!((Value::from(twin.for_service()), twin.version()), (before, version));
}

#[test]
fn null_empties_a_section_and_its_event_names_every_key() {
    let mut twin = twin();
    let body = json!({"tags": {"a": 1, "b": {"c": 2}}, "properties": {"desired": {"x": 1}}});
    twin.patch(write(body), AT).expect("it is fine");
    let body = json!({"tags": null, "properties": {"desired": null}});
    let changed = twin.patch(write(body), AT).expect("it is fine");
    assert_eq!(changed.event["tags"], json!({"a": null, "b": null}));
    assert_eq!(changed.desired, Some((3, json!({"x": null, "$version": 3}))));
    let service = Value::from(twin.for_service());
    assert_eq!(service.get("tags"), None);
    assert_eq!(plain(&service["properties"]["desired"]), json!({}));
}

#[test]
fn a_replacement_leaves_nothing_else() {
    let mut twin = twin();
    let body = json!({"tags": {"a": 1}, "properties": {"desired": {"x": {"y": 1, "z": 2}, "w": 3}}});
    twin.patch(write(body), AT).expect("it is fine");
    let body = json!({"tags": {"b": 2}, "properties": {"desired": {"x": {"y": 5}, "n": null}}});
    twin.replace(write(body), AT).expect("it is fine");
    let service = Value::from(twin.for_service());
    assert_eq!(service["tags"], json!({"b": 2}));
    assert_eq!(plain(&service["properties"]["desired"]), json!({"x": {"y": 5}}));
    twin.replace(write(json!({})), AT).expect("it is fine");
    assert_eq!(Value::from(twin.for_service()).get("tags"), None);
}

#[test]
fn a_whole_twin_sent_back_is_taken() {
    let mut twin = twin();
    twin.patch(write(json!({"tags": {"a": 1}, "properties": {"desired": {"x": 1}}})), AT).expect("it is fine");
    let mut whole = twin.for_service();
    whole.insert("deviceId".to_owned(), "d1".into());
    let changed = twin.patch(write(whole.into()), AT).expect("it is fine");
    assert_eq!(changed.desired, Some((3, json!({"x": 1, "$version": 3}))), "a tag edit in the portal bumps desired");
}

#[test]
fn sections_of_another_shape_are_refused() {
    for body in [json!([]), json!({"tags": 1}), json!({"properties": []}), json!({"properties": {"desired": "x"}})] {
        assert!(matches!(ServiceWrite::parse(&body), Err(Violation::NotAnObject(_))), "{body}");
    }
}

/// Documents of all kinds of values and keys, some of which break a rule.
fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1000_i64..1000).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z \\n]{0,8}".prop_map(Value::from),
        (4090_usize..4100).prop_map(|length| "x".repeat(length).into()),
    ];
    let key = prop_oneof![8 => "[a-e]", 1 => "[.$# ]", 1 => Just(String::new())];
    let tree = leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            3 => proptest::collection::btree_map(key.clone(), inner.clone(), 0..4)
                .prop_map(|map| Value::from(map.into_iter().collect::<Map<_, _>>())),
            1 => proptest::collection::vec(inner, 0..3).prop_map(Value::from),
        ]
    });
    proptest::collection::btree_map("[a-e]", tree, 0..4).prop_map(|map| map.into_iter().collect::<Map<_, _>>().into())
}

proptest! {
    #[test]
    fn a_refused_write_changes_nothing_and_an_accepted_one_leaves_what_the_rules_allow(
        patches in proptest::collection::vec((document(), 0..3), 1..6)
    ) {
        let mut twin = twin();
        for (patch, kind) in patches {
            let (before, version) = (Value::from(twin.for_service()), twin.version());
            let result = match kind {
                0 => twin.report(&patch, AT),
                1 => twin.patch(write(json!({"tags": patch, "properties": {"desired": patch}})), AT),
                _ => twin.replace(write(json!({"tags": patch, "properties": {"desired": patch}})), AT),
            };
            if result.is_err() {
                prop_assert_eq!((Value::from(twin.for_service()), twin.version()), (before, version));
            } else {
                prop_assert_eq!(twin.version(), version + 1);
            }
            for (section, values) in [
                (Section::Tags, &twin.tags),
                (Section::Desired, twin.desired.values()),
                (Section::Reported, twin.reported.values()),
            ] {
                prop_assert_eq!(rules::check(values), Ok(()));
                prop_assert!(rules::size(values) <= section.max_bytes());
            }
        }
    }
}
