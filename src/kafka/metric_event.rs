//! Events for metrics: requests answered and failed, connections made and lost, throttling.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Address, KafkaError, TopicHandle};
use crate::model::Partition;

/// An event for metrics. `api` is the key of the API in the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricEvent {
    /// A broker responded to a request.
    Answered {
        /// The key of the request's API.
        api: i16,
        /// The address of the broker that responded.
        broker: Address,
        /// The time since the request. A Fetch waits at the broker for records.
        took: Duration,
    },
    /// A response to a Fetch came that neither throttles nor rejects it.
    Fetched {
        /// The address of the broker that responded.
        broker: Address,
        /// The time since the request.
        took: Duration,
        /// How long the broker was allowed to wait for records.
        wait: Duration,
        /// Whether the response had records.
        records: bool,
    },
    /// A request was lost with its connection, or something in a response was an error.
    Failed {
        /// The key of the request's API.
        api: i16,
        /// The broker. `None` if its connection broke while its responses were handled.
        broker: Option<Address>,
        /// The partition that the error is about, if it was read or written.
        partition: Option<(TopicHandle, Partition)>,
        /// Why the request was lost, or which error the response had.
        error: KafkaError,
    },
    /// A connection to this address was established.
    Connected(Address),
    /// A connection ended, or could not be established.
    Disconnected {
        /// The broker at the other end.
        broker: Address,
        /// Whether the connection was established before.
        stood: bool,
        /// The cause. `None` if either side closed it in good order.
        error: Option<KafkaError>,
    },
    /// A broker throttled a connection (KIP-219).
    Throttled(Duration),
}

/// Events that wait for the driver. The driver takes them once a turn. More come in a turn only
/// where some thousand partitions are refused in it.
const METRIC_EVENTS_MAX: usize = 4096;

/// Room beyond it for connections that were made or lost, of which a turn has a few. A lost one
/// that is not counted would be shown as open for ever.
const CONNECTIONS_MAX: usize = 1024;

/// A queue of events for metrics. Events that do not fit are dropped, which falsifies only sums and
/// histograms. Readiness, the log and all decisions use [`super::Event`].
#[derive(Debug, Default)]
pub(super) struct MetricEvents(VecDeque<MetricEvent>);

impl MetricEvents {
    pub(super) fn push(&mut self, metric_event: MetricEvent) {
        let max = match metric_event {
            MetricEvent::Connected(_) | MetricEvent::Disconnected { .. } => {
                METRIC_EVENTS_MAX + CONNECTIONS_MAX
            }
            _ => METRIC_EVENTS_MAX,
        };
        if self.0.len() < max {
            self.0.push_back(metric_event);
        }
    }

    pub(super) fn next(&mut self) -> Option<MetricEvent> {
        self.0.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection that is not counted out again is shown as open for ever.
    #[test]
    fn connections_are_counted_whatever_else_happens() {
        let broker = Address {
            host: "b".into(),
            port: 9092,
        };
        let ended = MetricEvent::Disconnected {
            broker: broker.clone(),
            stood: true,
            error: None,
        };
        let mut metric_events = MetricEvents::default();
        let mut many = |metric_event: &MetricEvent| {
            (0..3 * METRIC_EVENTS_MAX).for_each(|_| metric_events.push(metric_event.clone()));
        };
        many(&MetricEvent::Throttled(Duration::ZERO));
        many(&MetricEvent::Connected(broker));
        metric_events.push(ended.clone());
        assert_eq!(
            metric_events.0.len(),
            METRIC_EVENTS_MAX + CONNECTIONS_MAX,
            "it has a limit"
        );
        let mut metric_events = MetricEvents::default();
        for _ in 0..3 * METRIC_EVENTS_MAX {
            metric_events.push(MetricEvent::Throttled(Duration::ZERO));
        }
        metric_events.push(ended.clone());
        assert_eq!(metric_events.0.pop_back(), Some(ended));
    }
}
