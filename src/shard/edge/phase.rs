//! What an HTTP/1.1 connection is doing, and which event leads where. The table is a snapshot test
//! at the end of this file.
//!
//! A connection whose response becomes an event stream leaves the table: it carries nothing else
//! (`streams.rs`).

/// What an HTTP/1.1 connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No exchange is open. The socket is read for the next request, part of which may be here.
    Reading,
    /// The response of the open exchange has not begun. The socket is not read: an unread socket is
    /// the back-pressure.
    Waiting,
    /// The response of the open exchange is sent in pieces. The socket is not read.
    Sending,
    /// The last response was given, and the client may still send. Its input is discarded, because
    /// closing the socket would reset the connection and could lose the response.
    Discarding,
    /// As `Discarding`, after all bytes were sent and our side was ended.
    Lingering,
    /// The last response was given and the client sends no more: closed once all bytes are sent.
    Closing,
}

/// Declares events: from which phases each may come, and the phase it leads to.
macro_rules! events {
    ($($(#[$doc:meta])* $event:ident: $($from:ident),+ => $to:ident;)*) => {
        impl Phase {
            $(
                $(#[$doc])*
                pub(super) fn $event(&mut self) {
                    let legal = matches!(self, $(Self::$from)|+);
                    debug_assert!(legal, concat!(stringify!($event), " in phase {:?}"), self);
                    if legal {
                        *self = Self::$to;
                    }
                }
            )*
        }

        #[cfg(test)]
        const EVENTS: &[(&str, &[Phase], Phase)] =
            &[$((stringify!($event), &[$(Phase::$from),+], Phase::$to)),*];
    };
}

events! {
    /// The request must wait for another shard.
    on_wait: Reading => Waiting;
    /// The head of the response is written, and its body comes in pieces.
    on_pieces: Reading => Sending;
    /// The response is complete, and the connection may carry another request.
    on_response: Reading, Waiting, Sending => Reading;
    /// The response is complete and the last one, as the client asked or expects.
    on_last_response: Reading, Waiting, Sending => Closing;
    /// The response is complete and the last one, which the client may not expect: it still sends,
    /// or may at any moment.
    on_early_end: Reading, Waiting, Sending => Discarding;
    /// The client ended its side while bytes wait for its socket: it may still read them.
    on_client_end: Reading => Closing;
    /// TLS failed. The alert is still to be sent.
    on_broken_tls: Reading => Closing;
    /// The connection's own bytes made the gateway panic. What was answered before is still to be
    /// sent.
    on_panic: Reading => Closing;
    /// All bytes of the last response are sent, and our side is ended.
    on_end_writes: Discarding => Lingering;
}

impl Phase {
    /// Whether an exchange of the connection is open.
    pub(super) const fn has_exchange(self) -> bool {
        match self {
            Self::Waiting | Self::Sending => true,
            Self::Reading | Self::Discarding | Self::Lingering | Self::Closing => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 6] = [
        Phase::Reading,
        Phase::Waiting,
        Phase::Sending,
        Phase::Discarding,
        Phase::Lingering,
        Phase::Closing,
    ];

    /// Every phase × event. An event that is not listed for a phase cannot happen in it. Every
    /// phase also ends when the socket breaks or a timeout expires. That frees the connection and
    /// has no row.
    #[test]
    fn transitions() {
        let mut table = String::new();
        for phase in PHASES {
            for (event, from, to) in EVENTS {
                let to = if from.contains(&phase) {
                    format!("{to:?}")
                } else {
                    "-".to_owned()
                };
                table.push_str(&format!("{:<11}{event:<17}{to}\n", format!("{phase:?}")));
            }
        }
        insta::assert_snapshot!(table, @r"
        Reading    on_wait          Waiting
        Reading    on_pieces        Sending
        Reading    on_response      Reading
        Reading    on_last_response Closing
        Reading    on_early_end     Discarding
        Reading    on_client_end    Closing
        Reading    on_broken_tls    Closing
        Reading    on_panic         Closing
        Reading    on_end_writes    -
        Waiting    on_wait          -
        Waiting    on_pieces        -
        Waiting    on_response      Reading
        Waiting    on_last_response Closing
        Waiting    on_early_end     Discarding
        Waiting    on_client_end    -
        Waiting    on_broken_tls    -
        Waiting    on_panic         -
        Waiting    on_end_writes    -
        Sending    on_wait          -
        Sending    on_pieces        -
        Sending    on_response      Reading
        Sending    on_last_response Closing
        Sending    on_early_end     Discarding
        Sending    on_client_end    -
        Sending    on_broken_tls    -
        Sending    on_panic         -
        Sending    on_end_writes    -
        Discarding on_wait          -
        Discarding on_pieces        -
        Discarding on_response      -
        Discarding on_last_response -
        Discarding on_early_end     -
        Discarding on_client_end    -
        Discarding on_broken_tls    -
        Discarding on_panic         -
        Discarding on_end_writes    Lingering
        Lingering  on_wait          -
        Lingering  on_pieces        -
        Lingering  on_response      -
        Lingering  on_last_response -
        Lingering  on_early_end     -
        Lingering  on_client_end    -
        Lingering  on_broken_tls    -
        Lingering  on_panic         -
        Lingering  on_end_writes    -
        Closing    on_wait          -
        Closing    on_pieces        -
        Closing    on_response      -
        Closing    on_last_response -
        Closing    on_early_end     -
        Closing    on_client_end    -
        Closing    on_broken_tls    -
        Closing    on_panic         -
        Closing    on_end_writes    -
        ");
    }
}
