//! Whatever the hub sends: no panic, and no answer out of thin air.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use proptest::prelude::*;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::Publish;
use secrecy::SecretString;
use tokio::time::Instant;

use super::*;
use crate::config::{Pipeline, Sku};
use crate::iot_hub::ask::{Ask, Order, Queue, Reply};
use crate::iot_hub::pace::{Pace, Share};
use crate::iot_hub::registry::{parse_identity, parse_twin};
use crate::iot_hub::session::Session;
use crate::iot_hub::{HubError, TwinAnswer};

const CONNACK: [u8; 4] = [0x20, 2, 0, 0];

/// A session with a message and a patch under way.
fn session(now: Instant) -> (Session, Queue, Reply<()>, Reply<TwinAnswer>) {
    let token = SecretString::from("token");
    let id = device("eui-1").id;
    let mut session = Session::new(&id, id.to_string(), "h", &token, Pipeline::Connack, now).expect("a session");
    let pace = Arc::new(Pace::new(Sku::S3, 1, Share::UplinkIngress));
    let deadline = now + Duration::from_secs(1);
    let (telemetry, acknowledged) = Ask::new(telemetry("m1"), deadline, &pace);
    let (twin, answered) = Ask::new(patch(1), deadline, &pace);
    let mut queue = Queue::default();
    queue.push(Order { telemetry: Some(telemetry), twin: Some(twin) });
    session.take_all(&mut BytesMut::from(&CONNACK[..]), now).expect("accepted");
    session.post(&mut queue, now).expect("posted");
    (session, queue, acknowledged, answered)
}

/// The request id of the twin request in the bytes that a session wrote.
fn request_id(out: &[u8]) -> String {
    let text = String::from_utf8_lossy(out);
    let rid = text.rsplit_once("$rid=").expect("a request id").1;
    rid.chars().take_while(char::is_ascii_hexdigit).collect()
}

proptest! {
    #[test]
    fn bytes_without_sense_answer_nobody(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        // PUBACKs are valid by chance: they are another test's matter.
        prop_assume!(!bytes.contains(&0x40));
        let now = Instant::now();
        let (mut session, _, mut acknowledged, mut answered) = session(now);
        let _ = session.take_all(&mut BytesMut::from(&bytes[..]), now);
        prop_assert!(acknowledged.try_recv().is_err());
        prop_assert!(answered.try_recv().is_err());
    }

    #[test]
    fn a_twin_answer_with_any_body_is_an_error_or_a_version(
        status in 0u32..1000, version in proptest::option::of("[0-9a-z]{0,24}"), body in ".{0,200}",
    ) {
        let now = Instant::now();
        let (mut session, _, _, mut answered) = session(now);
        let rid = request_id(&session.out);
        let version = version.map_or_else(String::new, |version| format!("&$version={version}"));
        let mut bytes = BytesMut::new();
        let topic = format!("$iothub/twin/res/{status}/?$rid={rid}{version}");
        Publish::new(topic, QoS::AtMostOnce, body).write(&mut bytes).expect("encode");
        session.take_all(&mut bytes, now).expect("understood");
        let answer = answered.try_recv().expect("answered");
        match answer {
            Ok(_) => prop_assert!((200..300).contains(&status)),
            Err(HubError::Garbled { .. }) => prop_assert!((200..300).contains(&status)),
            Err(error) => prop_assert!(error.to_string().len() < 200),
        }
    }

    #[test]
    fn a_packet_in_pieces_is_the_packet_whole(cut in 0usize..4) {
        let now = Instant::now();
        let (mut session, _, mut acknowledged, _) = session(now);
        // SUBSCRIBE has id 1, the message 2.
        let puback = [0x40, 2, 0, 2];
        let mut incoming = BytesMut::from(&puback[..cut]);
        session.take_all(&mut incoming, now).expect("incomplete");
        prop_assert!(acknowledged.try_recv().is_err());
        incoming.put_slice(&puback[cut..]);
        session.take_all(&mut incoming, now).expect("complete");
        prop_assert_eq!(acknowledged.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn no_answer_of_the_service_api_panics(body in "[\\[\\]{}\",:a-z0-9$]{0,200}") {
        let id = device("eui-1").id;
        let _ = (parse_identity(&id, body.as_bytes()), parse_twin(&id, body.as_bytes()));
    }
}

#[test]
fn a_packet_above_the_bound_ends_the_session() {
    let now = Instant::now();
    let (mut session, ..) = session(now);
    // PUBLISH that announces 2 MB.
    let mut incoming = BytesMut::from(&[0x30, 0x80, 0x80, 0x80, 0x01][..]);
    assert!(session.take_all(&mut incoming, now).is_err());
}

#[test]
fn a_hub_that_owes_an_answer_and_says_nothing_is_taken_for_dead() {
    let now = Instant::now();
    let (mut session, mut queue, ..) = session(now);
    assert!(!session.is_silent(now + Duration::from_secs(9)));
    assert!(session.is_silent(now + Duration::from_secs(10)));
    session.rescue(&mut queue);
    assert_eq!((queue.telemetry.len(), queue.twins.len()), (1, 1));
}
