//! The core suite on older releases of Kafka: the last with ZooKeeper's protocol versions, and the
//! first without. (The newest is `kafka::real`, which runs everything.)

use std::sync::OnceLock;

use crate::ground::Ground;

/// One scenario of each kind, and those that depend on request versions: codecs, headers, resuming,
/// batches that end early, errors of a missing topic.
macro_rules! core {
    ($ground:path) => {
        crate::scenarios::on_ground! { $ground,
            commands: [
                a_reply_becomes_the_response,
                a_retry_at_a_peer_started_later_gets_the_same_reply,
                commands_of_many_clients_each_get_their_own_reply,
            ],
            queries: [
                all_of_them_over_many_shards,
                a_write_becomes_visible,
            ],
            streams: [
                a_live_stream_begins_now,
                a_snapshot_is_the_newest_of_each_key,
                records_of_every_codec,
                records_without_key_or_value,
                what_can_not_be_decoded_is_a_gap,
                a_stream_goes_on_at_another_peer,
            ],
            starting: [
                a_missing_topic_is_named_until_it_is_there,
            ],
        }
    };
}

mod v3_9_2 {
    core!(crate::kafka::versions::kafka_3_9_2);
}
mod v4_0_2 {
    core!(crate::kafka::versions::kafka_4_0_2);
}

fn kafka_3_9_2() -> &'static Ground {
    static GROUND: OnceLock<Ground> = OnceLock::new();
    GROUND.get_or_init(|| Ground::of_version("3.9.2"))
}

fn kafka_4_0_2() -> &'static Ground {
    static GROUND: OnceLock<Ground> = OnceLock::new();
    GROUND.get_or_init(|| Ground::of_version("4.0.2"))
}
