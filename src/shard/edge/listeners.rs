//! How connections of each listener begin.

use std::sync::Arc;

use crate::model::Now;
use crate::shard::io::ListenerId;
use crate::shard::setup::ListenerKind;
use crate::tls::{Acceptor, Session};

use super::transport::Transport;

/// The listeners of a shard, as its edge uses them.
#[derive(Debug)]
pub(in crate::shard) struct EdgeListeners {
    kinds: Arc<[ListenerKind]>,
    tls: Option<Acceptor>,
}

impl EdgeListeners {
    pub(in crate::shard) const fn new(kinds: Arc<[ListenerKind]>, tls: Option<Acceptor>) -> Self {
        Self { kinds, tls }
    }

    /// Accepts TLS clients with this from now on.
    pub(super) fn set_acceptor(&mut self, acceptor: Acceptor) {
        self.tls = Some(acceptor);
    }

    /// The transport of a new connection. `offer_http2`: TLS clients may choose HTTP/2. `None`: the
    /// listener speaks TLS, and no session can begin.
    pub(super) fn transport(
        &self,
        listener: ListenerId,
        offer_http2: bool,
        now: Now,
    ) -> Option<Transport> {
        let kind = self.kinds.get(usize::from(listener.0));
        let kind = kind.copied().unwrap_or_default();
        let transport = if kind.tls {
            let session = Session::new(self.tls.as_ref()?, offer_http2, now);
            Transport::Tls(Box::new(session.ok()?))
        } else {
            Transport::Plain
        };
        Some(if kind.proxy_protocol {
            Transport::behind_proxy(transport)
        } else {
            transport
        })
    }
}
