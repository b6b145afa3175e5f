//! MQTT 3.1.1 packets out of a byte stream and into it.

use std::io;

use bytes::{Buf as _, BytesMut};
use mqtt_proto::v3::{Header, Packet, SubscribeReturnCode};
use tokio_util::codec::{Decoder, Encoder};

/// The largest packet: a message of 256 KB, its topic, and headers. A larger one ends the connection.
const MAX_PACKET_BYTES: usize = 256 * 1024 + 65_535 + 16;

/// The return code of a refused subscription (MQTT 3.1.1, section 3.9.3).
const SUBSCRIPTION_FAILED: u8 = 0x80;

/// The codec of a connection.
#[derive(Debug, Default)]
pub(super) struct MqttCodec;

impl Decoder for MqttCodec {
    type Item = Packet;
    type Error = io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Packet>> {
        let header = match Header::decode(buffer) {
            Ok(header) => header,
            Err(error) if error.is_eof() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Not `header.total_len`: as of mqtt-proto 0.4 this decoder fills it with the length of the length alone.
        let length = mqtt_proto::total_len(header.remaining_len as usize)?;
        if length > MAX_PACKET_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the packet is too large"));
        }
        if buffer.len() < length {
            buffer.reserve(length - buffer.len());
            return Ok(None);
        }
        // A packet whose fields run past its own end looks unfinished to the decoder, and will never be finished.
        let packet = Packet::decode(&buffer[..length])?
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the packet is shorter than its fields"))?;
        buffer.advance(length);
        Ok(Some(packet))
    }
}

impl Encoder<Packet> for MqttCodec {
    type Error = io::Error;

    fn encode(&mut self, packet: Packet, buffer: &mut BytesMut) -> io::Result<()> {
        buffer.extend_from_slice(packet.encode()?.as_ref());
        if let Packet::Suback(suback) = packet {
            // mqtt-proto 0.4 writes the place of the variant, 3, where the protocol says 0x80.
            let codes = buffer.len() - suback.topics.len();
            for (byte, code) in buffer[codes..].iter_mut().zip(suback.topics) {
                if code == SubscribeReturnCode::Failure {
                    *byte = SUBSCRIPTION_FAILED;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mqtt_proto::v3::{Publish, Suback};
    use mqtt_proto::{Pid, QosPid};
    use proptest::prelude::*;

    use super::*;

    fn publish(payload: &[u8]) -> Packet {
        let topic = "devices/d/messages/events/".try_into().expect("it has no wildcards");
        Publish::new(QosPid::Level0, topic, Bytes::copy_from_slice(payload)).into()
    }

    #[test]
    fn a_packet_comes_out_once_its_last_byte_is_in() {
        let (mut wire, mut codec) = (BytesMut::new(), MqttCodec);
        codec.encode(publish(b"hello"), &mut wire).expect("it is a valid packet");
        let mut buffer = BytesMut::new();
        for (at, byte) in wire.iter().enumerate() {
            buffer.extend_from_slice(&[*byte]);
            let packet = codec.decode(&mut buffer).expect("the bytes are valid");
            assert_eq!(packet.is_some(), at + 1 == wire.len());
        }
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_packet_beyond_the_limit_is_refused_by_its_header() {
        let mut buffer = BytesMut::from(&[0x30, 0xff, 0xff, 0xff, 0x7f][..]);
        assert!(MqttCodec.decode(&mut buffer).is_err());
    }

    #[test]
    fn a_refused_subscription_is_written_as_the_protocol_says() {
        let codes = vec![SubscribeReturnCode::MaxLevel1, SubscribeReturnCode::Failure];
        let mut buffer = BytesMut::new();
        MqttCodec.encode(Suback::new(Pid::default(), codes).into(), &mut buffer).expect("it is a valid packet");
        assert_eq!(&buffer[..], [0x90, 4, 0, 1, 1, 0x80]);
    }

    #[test]
    fn a_packet_shorter_than_its_fields_is_refused() {
        let mut buffer = BytesMut::from(&[0x30, 0x02, 0x00, 0x09][..]);
        assert!(MqttCodec.decode(&mut buffer).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_codec_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = MqttCodec.decode(&mut buffer) {}
        }

        #[test]
        fn payloads_come_back_byte_for_byte(payload in proptest::collection::vec(any::<u8>(), 0..512)) {
            let mut buffer = BytesMut::new();
            MqttCodec.encode(publish(&payload), &mut buffer).expect("it is a valid packet");
            prop_assert_eq!(MqttCodec.decode(&mut buffer).expect("it was just encoded"), Some(publish(&payload)));
        }
    }
}
