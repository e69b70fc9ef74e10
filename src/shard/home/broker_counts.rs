//! What a home counts of its brokers: the sums of the client's events for metrics.

use std::collections::BTreeMap;

use crate::kafka::{Address, KafkaError, MetricEvent};
use crate::metrics::{
    BrokerMetrics, BrokerStatus, Histogram, KafkaApi, KafkaFailure, KafkaMetrics,
};

/// Counts for metrics since the shard's start: in total and by broker.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    pub(super) kafka: KafkaMetrics,
    pub(super) brokers: BTreeMap<String, BrokerMetrics>,
    /// The last failure of a connection, by broker.
    failures: BTreeMap<String, String>,
}

impl Counted {
    pub(super) fn count(&mut self, event: MetricEvent) {
        match event {
            MetricEvent::Answered { api, broker, took } => {
                let api = KafkaApi::of(api);
                self.kafka.request_time.at(api).record(took);
                match api {
                    KafkaApi::Fetch => {}
                    KafkaApi::Produce => self.at(&broker).produce_time.record(took),
                    _ => self.at(&broker).request_time.record(took),
                }
            }
            MetricEvent::Fetched {
                broker,
                took,
                wait,
                records,
            } => {
                if records {
                    self.at(&broker).fetch_time.record(took);
                } else {
                    self.at(&broker)
                        .fetch_late
                        .record(took.saturating_sub(wait));
                }
            }
            MetricEvent::Failed {
                api, broker, error, ..
            } => {
                let of_api = self.kafka.failures.at(KafkaApi::of(api));
                of_api.bump(failure(&error));
                if let Some(broker) = broker {
                    self.at(&broker).failures.bump(failure(&error));
                }
            }
            MetricEvent::Connected(broker) => {
                let broker = self.at(&broker);
                broker.connected.bump();
                broker.connections.up();
            }
            MetricEvent::Disconnected {
                broker,
                stood,
                error,
            } => {
                let address = broker.to_string();
                let broker = self.at(&broker);
                if stood {
                    broker.connections.down();
                }
                if let Some(error) = error {
                    broker.failed.bump();
                    if self.brokers.contains_key(&address) {
                        self.failures.insert(address, error.to_string());
                    }
                }
            }
            MetricEvent::Throttled(by) => self.kafka.throttled.0 += by,
        }
    }

    fn at(&mut self, broker: &Address) -> &mut BrokerMetrics {
        BrokerMetrics::of(&mut self.brokers, &broker.to_string())
    }

    /// The state of the brokers, for `/status`.
    pub(super) fn status(&self) -> Vec<BrokerStatus> {
        let status = |(broker, it): (&String, &BrokerMetrics)| BrokerStatus {
            broker: broker.clone(),
            connections: it.connections.0,
            connected: it.connected.0,
            failed: it.failed.0,
            last_failure: self.failures.get(broker).cloned(),
            requests_failed: it.failures.sum(),
            requests: it.request_time.count() + it.produce_time.count(),
            request_micros: micros(&it.request_time) + micros(&it.produce_time),
        };
        self.brokers.iter().map(status).collect()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
fn micros(times: &Histogram) -> u64 {
    (times.sum_seconds() * 1e6) as u64
}

fn failure(error: &KafkaError) -> KafkaFailure {
    match error {
        KafkaError::Timeout | KafkaError::ConnectTimeout => KafkaFailure::Timeout,
        KafkaError::Protocol(_)
        | KafkaError::Frame { .. }
        | KafkaError::NotKafka
        | KafkaError::NoMetadata => KafkaFailure::Protocol,
        KafkaError::Broker(code) if code.is_stale() => KafkaFailure::Leader,
        KafkaError::Broker(_) => KafkaFailure::Broker,
        _ => KafkaFailure::Connection,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::Code;
    use std::time::Duration;

    #[test]
    fn facts_add_up() {
        let at = |host: &str| Address {
            host: host.into(),
            port: 9092,
        };
        let mut counted = Counted::default();
        let took = Duration::from_millis(2);
        let ended = |error| MetricEvent::Disconnected {
            broker: at("a"),
            stood: true,
            error,
        };
        let failed = |api, error| MetricEvent::Failed {
            api,
            broker: Some(at("a")),
            partition: None,
            error,
        };
        let fetched = |records| MetricEvent::Fetched {
            broker: at("a"),
            took: Duration::from_millis(502),
            wait: Duration::from_millis(500),
            records,
        };
        for event in [
            MetricEvent::Connected(at("a")),
            MetricEvent::Answered {
                api: 0,
                broker: at("a"),
                took,
            },
            MetricEvent::Answered {
                api: 1,
                broker: at("a"),
                took,
            },
            ended(Some(KafkaError::Timeout)),
            MetricEvent::Connected(at("a")),
            ended(None),
            MetricEvent::Connected(at("a")),
            failed(0, KafkaError::Broker(Code(6))),
            failed(0, KafkaError::Broker(Code(87))),
            failed(1, KafkaError::Timeout),
            fetched(false),
            fetched(true),
            MetricEvent::Throttled(took),
            MetricEvent::Throttled(took),
        ] {
            counted.count(event);
        }
        let kafka = &counted.kafka;
        assert_eq!(kafka.request_time.get(KafkaApi::Fetch).count(), 1);
        let produce = kafka.failures.get(KafkaApi::Produce);
        assert_eq!(produce.get(KafkaFailure::Leader).0, 1);
        assert_eq!(produce.get(KafkaFailure::Broker).0, 1);
        assert_eq!(kafka.throttled.0, Duration::from_millis(4));
        let broker = &counted.brokers["a:9092"];
        let sums = [&broker.fetch_late, &broker.fetch_time, &broker.produce_time];
        assert_eq!(sums.map(micros), [2_000, 502_000, 2_000]);
        assert_eq!(broker.request_time.count(), 0);
        assert_eq!(broker.failures.get(KafkaFailure::Leader).0, 1);
        let expected = BrokerStatus {
            broker: "a:9092".into(),
            connections: 1,
            connected: 3,
            failed: 1,
            last_failure: Some(KafkaError::Timeout.to_string()),
            requests_failed: 3,
            requests: 1,
            request_micros: 2000,
        };
        assert_eq!(counted.status(), [expected]);
    }
}
