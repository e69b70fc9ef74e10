//! The states of a connection to a broker, and what moves it from one to the next. The table test
//! below shows every state with every event.

use super::KafkaError;

/// A connection is set up in this order: connect, agree on versions, authenticate (if the cluster
/// wants SASL), compare the cluster's id (if one is known). A session that ends is renewed from
/// [`Self::Ready`] by the same steps of SASL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkState {
    /// The driver connects the socket, TLS included.
    Connecting,
    /// ApiVersions is in flight, to agree on versions.
    Negotiating,
    /// SaslHandshake is in flight, to name the mechanism.
    ChoosingMechanism(Login),
    /// SaslAuthenticate is in flight, with a message of the mechanism.
    Authenticating(Login),
    /// Another thread salts the password; nothing is in flight.
    Salting(Login),
    /// Metadata is in flight, for the cluster's id only.
    Identifying,
    /// The client's requests may be sent.
    Ready,
}

/// Which login of the connection SASL works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Login {
    First,
    /// The session ends, and the client logs in again (KIP-368).
    Renewal,
}

/// What happened to a connection, or what it must do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkEvent {
    /// The socket is connected: ApiVersions is sent.
    Connected,
    /// The broker does not know the version of ApiVersions. The request is sent again in version 0.
    VersionsRejected,
    /// The client must log in, for the first time or again: SaslHandshake is sent.
    LoginDue,
    /// The broker accepts the mechanism: the first message of SASL is sent.
    MechanismAccepted,
    /// The mechanism has another message to send.
    MessageDue,
    /// The next message needs a salted password.
    SaltDue,
    /// The cluster's id must be compared: Metadata is sent.
    IdentityDue,
    /// Nothing is left to set up.
    SetUp,
}

impl LinkState {
    /// The state after `event`. `None`: the event can't happen in this state.
    pub(super) const fn on(self, event: LinkEvent) -> Option<Self> {
        use LinkEvent as E;
        use LinkState as S;
        Some(match (event, self) {
            (E::Connected, S::Connecting) | (E::VersionsRejected, S::Negotiating) => S::Negotiating,
            (E::LoginDue, S::Negotiating) => S::ChoosingMechanism(Login::First),
            (E::LoginDue, S::Ready) => S::ChoosingMechanism(Login::Renewal),
            (E::MechanismAccepted, S::ChoosingMechanism(login))
            | (E::MessageDue, S::Authenticating(login) | S::Salting(login)) => {
                S::Authenticating(login)
            }
            (E::SaltDue, S::Authenticating(login) | S::Salting(login)) => S::Salting(login),
            // A connection that renews its session was identified before.
            (
                E::IdentityDue,
                S::Negotiating | S::Authenticating(Login::First) | S::Salting(Login::First),
            ) => S::Identifying,
            (E::SetUp, S::Negotiating | S::Authenticating(_) | S::Salting(_) | S::Identifying) => {
                S::Ready
            }
            _ => return None,
        })
    }

    /// Why the broker closed the connection, as far as the state tells. `unanswered`: it has not
    /// authenticated the client, has answered none of its requests, and some are in flight.
    pub(super) const fn on_closed(self, unanswered: bool) -> KafkaError {
        match self {
            // Kafka does so with bytes that are not of the protocol that the port speaks.
            Self::Connecting | Self::Negotiating => KafkaError::ClosedEarly,
            // Kafka does so with clients that skip SASL on a port that requires it.
            Self::Ready | Self::Identifying if unanswered => KafkaError::SaslWanted,
            _ => KafkaError::Closed,
        }
    }

    /// What the end of the connection's deadline means.
    pub(super) const fn on_deadline(self) -> KafkaError {
        match self {
            Self::Connecting => KafkaError::ConnectTimeout,
            _ => KafkaError::Timeout,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    const STATES: [LinkState; 10] = [
        LinkState::Connecting,
        LinkState::Negotiating,
        LinkState::ChoosingMechanism(Login::First),
        LinkState::Authenticating(Login::First),
        LinkState::Salting(Login::First),
        LinkState::Identifying,
        LinkState::Ready,
        LinkState::ChoosingMechanism(Login::Renewal),
        LinkState::Authenticating(Login::Renewal),
        LinkState::Salting(Login::Renewal),
    ];

    const EVENTS: [LinkEvent; 8] = [
        LinkEvent::Connected,
        LinkEvent::VersionsRejected,
        LinkEvent::LoginDue,
        LinkEvent::MechanismAccepted,
        LinkEvent::MessageDue,
        LinkEvent::SaltDue,
        LinkEvent::IdentityDue,
        LinkEvent::SetUp,
    ];

    /// Reviewed as a whole: a change of the table is a change of the protocol.
    #[test]
    fn every_state_and_event() {
        let mut table = String::new();
        for state in STATES {
            writeln!(table, "{state:?}").expect("a string");
            let mut row = |event: &str, result: &str| {
                writeln!(table, "    {event:<18} => {result}").expect("a string");
            };
            for event in EVENTS {
                let next = state.on(event).map(|next| format!("{next:?}"));
                row(&format!("{event:?}"), next.as_deref().unwrap_or("-"));
            }
            for (event, error) in [
                ("closed", state.on_closed(false)),
                ("closed unanswered", state.on_closed(true)),
                ("deadline", state.on_deadline()),
            ] {
                row(event, &format!("error {error:?}"));
            }
        }
        insta::assert_snapshot!(table);
    }
}
