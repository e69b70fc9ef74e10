//! How connections of each listener begin.

use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{Network, Now};
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

    /// Whether the client of a session may stay connected: it has no certificate, or one that is
    /// still trusted.
    pub(super) fn trusts(&self, session: &Session, now: Now) -> bool {
        let acceptor = self.tls.as_ref();
        acceptor.is_some_and(|acceptor| session.is_trusted_by(acceptor, now))
    }

    /// Whether a connection from `peer` may begin: on a listener with the PROXY protocol, only one
    /// of the listed proxies may claim a client's address. Who may connect to a Unix socket is a
    /// matter of its permissions.
    pub(super) fn admits(&self, listener: ListenerId, peer: IpAddr, proxies: &[Network]) -> bool {
        let kind = self.kind(listener);
        let anyone = !kind.proxy_protocol || kind.is_unix;
        anyone || proxies.iter().any(|proxy| proxy.contains(peer))
    }

    /// Whether connections begin with a header of the PROXY protocol.
    pub(super) fn has_proxy_header(&self, listener: ListenerId) -> bool {
        self.kind(listener).proxy_protocol
    }

    fn kind(&self, listener: ListenerId) -> ListenerKind {
        let kind = self.kinds.get(usize::from(listener.0));
        kind.copied().unwrap_or_default()
    }

    /// The transport of a new connection. `offer_http2`: TLS clients may choose HTTP/2. `None`: the
    /// listener speaks TLS, and no session can begin.
    pub(super) fn transport(
        &self,
        listener: ListenerId,
        offer_http2: bool,
        now: Now,
    ) -> Option<Transport> {
        if !self.kind(listener).tls {
            return Some(Transport::Plain);
        }
        let session = Session::new(self.tls.as_ref()?, offer_http2, now);
        session.ok().map(|it| Transport::Tls(Box::new(it)))
    }
}
