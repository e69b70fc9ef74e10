//! The producer id of the idempotent producer (KIP-98), under which new sequences begin, and the
//! request for one.

use std::time::Duration;

use kafka_protocol::messages::InitProducerIdRequest;

use super::Code;
use super::batch::Identity;
use super::context::Context;
use super::error::ProduceError;
use super::event::LinkId;
use super::link::Purpose;
use super::request_tag::RequestTag;
use super::view::BrokerId;
use super::wire::{Api, ResponseBody};
use crate::model::Instant;

/// The producer id of the next new sequence.
#[derive(Debug, Default)]
pub(super) struct Producer {
    pub(super) newest: Option<Identity>,
    asking: bool,
    not_before: Instant,
    /// Failed requests in a row.
    pub(super) failures: u32,
    /// Why there is no producer id.
    pub(super) error: Option<ProduceError>,
}

impl Producer {
    /// A partition gave up its sequence under this id. No later sequence of that partition may be
    /// under the same id, so new sequences get another one. Other partitions keep the id.
    pub(super) fn retire(&mut self, identity: Option<Identity>) {
        if identity.is_some() && self.newest == identity {
            self.newest = None;
        }
    }

    /// Requests an id if there is none.
    pub(super) fn ask(&mut self, node: BrokerId, cx: &mut Context<'_>) {
        if self.newest.is_some() || self.asking {
            return;
        }
        if self.not_before > cx.now.mono {
            return cx.wake.at(self.not_before);
        }
        let window = cx.window(Duration::ZERO);
        let Some(link) = cx.link(node, Purpose::Ask) else {
            return;
        };
        let id = link.id();
        let sent = link.ask(RequestTag::ProducerId, Api::InitProducerId, window, |_| {
            // The crate's default is an empty transactional id, which differs from none.
            InitProducerIdRequest::default()
                .with_transactional_id(None)
                .with_transaction_timeout_ms(60_000)
        });
        match sent {
            Ok(()) => self.asking = true,
            Err(error) => cx.give_up(id, error),
        }
    }

    /// The response with a producer id, or with an error.
    pub(super) fn on_answer(&mut self, link: LinkId, body: ResponseBody, cx: &mut Context<'_>) {
        match body.decode::<InitProducerIdRequest>() {
            Err(error) => {
                cx.give_up(link, error);
                self.on_lost(cx);
            }
            Ok(response) => {
                cx.links.throttle(link, response.throttle_time_ms, cx.now);
                if response.error_code != 0 || response.producer_id.0 < 0 {
                    let code = Code(response.error_code);
                    cx.saw(Api::InitProducerId, code);
                    self.error = Some(ProduceError::Broker(code));
                    return self.on_lost(cx);
                }
                let identity = (response.producer_id.0, response.producer_epoch);
                *self = Self {
                    newest: Some(identity),
                    ..Self::default()
                };
            }
        }
    }

    /// The request failed, and is retried after a backoff.
    pub(super) fn on_lost(&mut self, cx: &mut Context<'_>) {
        self.asking = false;
        self.failures += 1;
        self.not_before = cx.retry_at(self.failures);
    }
}
