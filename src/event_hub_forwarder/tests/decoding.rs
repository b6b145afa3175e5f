use serde_json::json;

use super::super::decode::{self, Change, Decoded, Touched};
use super::super::tally::Ignored;
use super::world::{event, id, lifecycle_event, object, twin_event};
use crate::functions::Event;
use crate::ids::DevicePrefix;

fn decode(event: &Event) -> Decoded {
    decode::decode(event, &DevicePrefix::default())
}

fn reason(decoded: Decoded) -> Ignored {
    match decoded {
        Decoded::Ignored(reason) => reason,
        other => panic!("{other:?}"),
    }
}

fn change(decoded: Decoded) -> Change {
    match decoded {
        Decoded::Event(event) => event.change,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_the_annotation_of_the_hub_is_believed() {
    let body = json!({"tags": {"lorawan": {"devEui": "A1B2C3D4E5F60718"}}});
    for source in ["Telemetry", "deviceConnectionStateEvents", ""] {
        let mut forged = event(source, "updateTwin", "probe-0017", &body);
        forged.properties.insert("iothub-message-source".to_owned(), json!("twinChangeEvents"));
        assert_eq!(reason(decode(&forged)), Ignored::NotFromHub, "{source}");
    }
    for source in ["twinChangeEvents", "TwinChangeEvents", "TWINCHANGEEVENTS"] {
        assert!(matches!(decode(&event(source, "updateTwin", "probe-0017", &body)), Decoded::Event(_)), "{source}");
    }
}

#[test]
fn the_device_comes_from_the_annotation_and_else_from_the_property() {
    let mut event = lifecycle_event("createDeviceIdentity", "probe-0017");
    event.properties.insert("deviceId".to_owned(), json!("forged-1"));
    let device = |event: &Event| match decode(event) {
        Decoded::Event(event) => event.device,
        other => panic!("{other:?}"),
    };
    assert_eq!(device(&event), id("probe-0017"));
    event.system_properties.remove("iothub-connection-device-id");
    assert_eq!(device(&event), id("forged-1"));
    event.properties.remove("deviceId");
    assert_eq!(reason(decode(&event)), Ignored::NoDevice);
}

#[test]
fn the_time_of_the_operation_is_read_if_there_is_one() {
    let mut event = lifecycle_event("deleteDeviceIdentity", "probe-0017");
    let at = |event: &Event| match decode(event) {
        Decoded::Event(event) => event.operation_at.map(|at| at.unix_timestamp()),
        other => panic!("{other:?}"),
    };
    assert_eq!(at(&event), None);
    let times = [
        ("2026-02-03T04:05:06.1234567Z", Some(1_770_091_506)),
        ("2026-02-03T05:05:06+01:00", Some(1_770_091_506)),
        ("yesterday", None),
    ];
    for (text, expected) in times {
        event.properties.insert("operationTimestamp".to_owned(), json!(text));
        assert_eq!(at(&event), expected, "{text}");
    }
}

#[test]
fn modules_and_unknown_operations_are_ignored() {
    let mut module = lifecycle_event("createDeviceIdentity", "probe-0017");
    module.properties.insert("moduleId".to_owned(), json!("m"));
    assert_eq!(reason(decode(&module)), Ignored::Module);
    assert_eq!(reason(decode(&lifecycle_event("deleteModuleIdentity", "probe-0017"))), Ignored::Module);
    assert_eq!(reason(decode(&lifecycle_event("renameDeviceIdentity", "probe-0017"))), Ignored::OtherOperation);
    let crossed = event("twinChangeEvents", "deleteDeviceIdentity", "probe-0017", &json!({}));
    assert_eq!(reason(decode(&crossed)), Ignored::OtherOperation);
}

#[test]
fn lifecycle_events_need_no_body() {
    let mut event = lifecycle_event("deleteDeviceIdentity", "probe-0017");
    for body in ["", "null", "{", "[]"] {
        event.body = body.into();
        assert_eq!(change(decode(&event)), Change::Deleted, "{body}");
    }
    let mut event = twin_event("probe-0017", json!({}));
    event.body = "{".into();
    assert!(matches!(decode(&event), Decoded::Dead { .. }));
}

#[test]
fn our_own_echoes_are_told_from_changes() {
    let cases = [
        (json!({"properties": {"reported": {"battery": 87, "$version": 4}}}), Ignored::EchoOfReported),
        (json!({"tags": {"stack": {"downlink": {"state": "pushed"}}}}), Ignored::EchoOfTags),
        (
            json!({"tags": {"stack": {"registration": {"state": "registered"}}, "lorawan": {"appKey": null}}}),
            Ignored::EchoOfTags,
        ),
        (json!({"tags": {"site": "north"}}), Ignored::NothingForUs),
        (json!({"properties": {"desired": {"interval": 600, "$version": 3}}}), Ignored::NothingForUs),
        (json!({}), Ignored::NothingForUs),
    ];
    for (body, expected) in cases {
        assert_eq!(reason(decode(&twin_event("probe-0017", body.clone()))), expected, "{body}");
    }
}

#[test]
fn what_was_touched_is_read_from_the_body() {
    let touched = |body| match change(decode(&twin_event("probe-0017", body))) {
        Change::Twin(touched) => touched,
        other => panic!("{other:?}"),
    };
    let none = Touched::default();
    let cases = [
        (json!({"tags": {"lorawan": {"devEui": "A1"}, "stack": {}}}), Touched { lorawan: true, ..none }),
        (json!({"tags": {"stack": {"downlink": {"state": "ready"}}}}), Touched { ready: true, ..none }),
        (
            json!({"properties": {"desired": {"decodedPayload": null, "rawDownlink": {"fPort": 1}, "$version": 7}}}),
            Touched { downlink: true, decoded_removed: true, desired_version: Some(7), ..none },
        ),
        (
            json!({"properties": {"desired": null}}),
            Touched { downlink: true, decoded_removed: true, raw_removed: true, ..none },
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(touched(body.clone()), expected, "{body}");
    }
}

#[test]
fn an_id_that_the_things_stack_cannot_have_is_ours_only_with_lorawan_tags() {
    let asks = twin_event("Pump.7", json!({"tags": {"lorawan": {"devEui": "A1B2C3D4E5F60718"}}}));
    match decode(&asks) {
        Decoded::Dead { device, reason } => {
            assert_eq!(device, "Pump.7");
            assert!(reason.contains("create the device in IoT Hub under an id"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(reason(decode(&lifecycle_event("createDeviceIdentity", "Pump.7"))), Ignored::NotAStackId);
}

#[test]
fn behind_a_prefix_stands_our_device_and_without_it_nobody_of_ours() {
    let prefix = DevicePrefix::parse("lorawan-").expect("valid");
    let body = json!({"tags": {"lorawan": {"devEui": "A1B2C3D4E5F60718"}}});
    for own in
        [lifecycle_event("createDeviceIdentity", "lorawan-probe-0017"), twin_event("lorawan-probe-0017", body.clone())]
    {
        match decode::decode(&own, &prefix) {
            Decoded::Event(event) => assert_eq!(event.device, id("probe-0017")),
            other => panic!("{other:?}"),
        }
    }
    for foreign in ["probe-0017", "LORAWAN-probe-0017", "lorawan", "Pump.7"] {
        let events = [
            lifecycle_event("createDeviceIdentity", foreign),
            lifecycle_event("deleteDeviceIdentity", foreign),
            twin_event(foreign, body.clone()),
            twin_event(foreign, json!("no object")),
        ];
        for event in events {
            assert_eq!(reason(decode::decode(&event, &prefix)), Ignored::NotOurs, "{foreign}");
        }
    }
    match decode::decode(&twin_event("lorawan-Pump.7", body), &prefix) {
        Decoded::Dead { device, .. } => assert_eq!(device, "lorawan-Pump.7"),
        other => panic!("{other:?}"),
    }
    let unasked = lifecycle_event("createDeviceIdentity", "lorawan-Pump.7");
    assert_eq!(reason(decode::decode(&unasked, &prefix)), Ignored::NotAStackId);
}

#[test]
fn property_names_are_found_in_any_case() {
    let mut event = lifecycle_event("createDeviceIdentity", "probe-0017");
    event.system_properties = object(json!({
        "IotHub-Message-Source": "deviceLifecycleEvents", "iothub-Connection-Device-Id": "probe-0017",
    }));
    assert_eq!(change(decode(&event)), Change::Created);
}
