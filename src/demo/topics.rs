//! The demo's topics: names, partitions, policies.

use crate::model::u32_of;

/// One topic of the demo.
pub(crate) struct Topic {
    /// The name of the topic.
    pub(crate) name: &'static str,
    /// Number of partitions. Kafka's default partitioner assigns keys to them.
    pub(crate) partitions: u16,
    /// Topic configs. Together they keep the topics below the broker's memory limit, so that it
    /// never has to delete the oldest records of all topics.
    pub(crate) configs: &'static [(&'static str, &'static str)],
}

/// Retention of 1 h and 8 MiB per partition. For replies, this is the time during which a retry is
/// answered.
const NEWEST: &[(&str, &str)] = &[("retention.ms", "3600000"), ("retention.bytes", "8388608")];

/// Commands of clients. There are five partitions because order holds only within one, and Ana and
/// Bo should be in different ones.
pub(crate) const COMMANDS: Topic = Topic {
    name: "payments-commands",
    partitions: 5,
    configs: NEWEST,
};
/// Replies of the service to commands.
pub(crate) const REPLIES: Topic = Topic {
    name: "payments-replies",
    partitions: 5,
    configs: NEWEST,
};
/// The newest state of each account. Queries are answered from it.
pub(crate) const BALANCES: Topic = Topic {
    name: "balances",
    partitions: 5,
    configs: &[("cleanup.policy", "compact")],
};
/// Events under the key of the person they concern, kept for 1 h. Streams send them.
pub(crate) const PAYMENTS: Topic = Topic {
    name: "payments",
    partitions: 5,
    configs: NEWEST,
};
/// The service's journal. It has one partition, because it needs one order. 96 MiB hold about 20
/// checkpoints; records do not expire by age.
pub(crate) const JOURNAL: Topic = Topic {
    name: "payments-journal",
    partitions: 1,
    configs: &[("retention.ms", "-1"), ("retention.bytes", "100663296")],
};

/// Every topic of the demo.
pub(crate) const ALL: [&Topic; 5] = [&COMMANDS, &REPLIES, &BALANCES, &PAYMENTS, &JOURNAL];

impl Topic {
    /// The partition of a key, as chosen by Kafka's Java clients and librdkafka's `murmur2`.
    pub(crate) fn partition_of(&self, key: &[u8]) -> usize {
        let positive = murmur2(key) & 0x7fff_ffff;
        (positive % u32::from(self.partitions)) as usize
    }
}

/// MurmurHash2 with Kafka's seed (`org.apache.kafka.common.utils.Utils#murmur2`).
fn murmur2(bytes: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ u32_of(bytes.len());
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        let word = u32::from_le_bytes(word.try_into().expect("four bytes a word"));
        let word = word.wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ (word ^ (word >> 24)).wrapping_mul(M);
    }
    let rest = words.remainder();
    for (place, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * place);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::murmur2;

    #[test]
    fn ana_and_bo_are_in_different_partitions() {
        let [ana, bo] = ["ana", "bo"].map(|key| super::PAYMENTS.partition_of(key.as_bytes()));
        assert_ne!(ana, bo);
    }

    /// Test vectors of Kafka's `UtilsTest#testMurmur2`.
    #[test]
    fn keys_hash_as_kafkas_own_clients_hash_them() {
        let vectors: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ];
        for (key, hash) in vectors {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }
}
