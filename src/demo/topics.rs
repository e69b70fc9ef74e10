//! The demo's topics: names, partitions, policies.

/// One topic as it is created.
pub(crate) struct Topic {
    /// Its name.
    pub(crate) name: &'static str,
    /// Partitions. A key's records are in one of them, by Kafka's own partitioner.
    pub(crate) partitions: u16,
    /// Kafka's settings for it. Together they keep below what the broker may hold, so that it
    /// never has to make room by taking the oldest of whatever there is.
    pub(crate) configs: &'static [(&'static str, &'static str)],
}

/// An hour, and 8 MiB a partition. For replies this is the window in which a retry is answered.
const NEWEST: &[(&str, &str)] = &[("retention.ms", "3600000"), ("retention.bytes", "8388608")];

/// What clients ask for. Order is per partition, and one would hide that; of five, Ana and Bo have
/// different ones.
pub(crate) const COMMANDS: Topic = Topic {
    name: "payments-commands",
    partitions: 5,
    configs: NEWEST,
};
/// What they are answered.
pub(crate) const REPLIES: Topic = Topic {
    name: "payments-replies",
    partitions: 5,
    configs: NEWEST,
};
/// The newest state of each account: queries are answered from it.
pub(crate) const BALANCES: Topic = Topic {
    name: "balances",
    partitions: 5,
    configs: &[("cleanup.policy", "compact")],
};
/// What happened, each person's under their own key: streams show it, for an hour.
pub(crate) const PAYMENTS: Topic = Topic {
    name: "payments",
    partitions: 5,
    configs: NEWEST,
};
/// The service's own book. One partition, so that there is one order. 96 MiB hold some 20
/// checkpoints; age alone takes nothing.
pub(crate) const JOURNAL: Topic = Topic {
    name: "payments-journal",
    partitions: 1,
    configs: &[("retention.ms", "-1"), ("retention.bytes", "100663296")],
};

/// All of them.
pub(crate) const ALL: [&Topic; 5] = [&COMMANDS, &REPLIES, &BALANCES, &PAYMENTS, &JOURNAL];

impl Topic {
    /// The partition of a key, as Kafka's Java clients and librdkafka's `murmur2` choose it.
    pub(crate) fn partition_of(&self, key: &[u8]) -> usize {
        let positive = murmur2(key) & 0x7fff_ffff;
        (positive % u32::from(self.partitions)) as usize
    }
}

/// MurmurHash2 with Kafka's seed (`org.apache.kafka.common.utils.Utils#murmur2`).
fn murmur2(bytes: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ bytes.len() as u32;
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

    /// The vectors of Kafka's own `UtilsTest#testMurmur2`.
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
