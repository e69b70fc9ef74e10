//! The states of a command from its record to its reply, and what the waiting exchanges receive at
//! each event. `open.rs` applies it, and a test there shows every state with every event.

/// The state of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommandState {
    /// Not in flight: never sent, or answered, refused or given up.
    Absent,
    /// Its record is produced, and the service's reply is due.
    InFlight,
    /// The broker has confirmed its record, and the service's reply is due. A client that prefers
    /// an asynchronous answer may have 202 now.
    Appended,
    /// Whether its record was appended will never be known. The command stays for
    /// `unknown_limit`, so that a retry joins it instead of being produced beside it.
    Unconfirmed,
}

/// What happened to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommandEvent {
    /// The request arrives, for the first time or again. There is room for it.
    Request,
    /// Another request arrives under the same command key.
    OtherRequest,
    /// The service replies to the request.
    Reply,
    /// The service replies to another request under the same command key.
    OtherReply,
    /// The broker confirms that the record is appended.
    Appended,
    /// The record was not and will not be appended.
    Refused,
    /// Whether the record was appended will never be known.
    OutcomeLost,
    /// A waiting client disconnects, and its exchange stops waiting.
    WaiterLeft,
    /// The deadline of a waiting exchange expires.
    WaiterExpired,
    /// `open_limit` or `unknown_limit` expires without a reply.
    LimitPassed,
}

impl CommandEvent {
    #[cfg(test)]
    pub(super) const ALL: [Self; 10] = [
        Self::Request,
        Self::OtherRequest,
        Self::Reply,
        Self::OtherReply,
        Self::Appended,
        Self::Refused,
        Self::OutcomeLost,
        Self::WaiterLeft,
        Self::WaiterExpired,
        Self::LimitPassed,
    ];
}

/// What an event does to the exchanges that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// The event changes nothing for the waiting exchanges.
    None,
    /// The exchange of the request waits. The caller produces the record now.
    Produce,
    /// The exchange of the request waits for the same reply. Nothing is produced.
    Join,
    /// The exchange of the request receives 422.
    Mismatch,
    /// The exchanges whose clients do not wait any longer for a reply receive 202. The others wait.
    Accept,
    /// All waiting exchanges receive the reply.
    Answer,
    /// All waiting exchanges receive 503: nothing happened.
    Refuse,
    /// All waiting exchanges receive 504: the outcome is unknown.
    GiveUp,
    /// An exchange stops waiting. If its deadline has passed, the exchange receives 504, or 503 if
    /// the record was still unsent and could be withdrawn, or 202 if its client prefers that and
    /// the record is appended.
    Leave,
}

impl CommandState {
    #[cfg(test)]
    pub(super) const ALL: [Self; 4] = [
        Self::Absent,
        Self::InFlight,
        Self::Appended,
        Self::Unconfirmed,
    ];

    /// The state after `event`, and its effect.
    pub(super) const fn on(self, event: CommandEvent) -> (Self, Effect) {
        use CommandEvent as E;
        match (event, self) {
            (E::Request, Self::Absent) => (Self::InFlight, Effect::Produce),
            // The reply index has decided about a request under a key that is not in flight.
            (E::OtherRequest, Self::Absent) => (Self::InFlight, Effect::Produce),
            (E::Request, open) => (open, Effect::Join),
            (E::OtherRequest, open) => (open, Effect::Mismatch),
            (_, Self::Absent) => (Self::Absent, Effect::None),
            (E::Reply, _) => (Self::Absent, Effect::Answer),
            // Another gateway may have produced another request under the key. Its reply answers no
            // exchange here.
            (E::OtherReply, open) => (open, Effect::None),
            (E::Appended, _) => (Self::Appended, Effect::Accept),
            // A record that is in the log is neither refused nor lost.
            (E::Refused | E::OutcomeLost, Self::Appended) => (Self::Appended, Effect::None),
            (E::Refused, _) => (Self::Absent, Effect::Refuse),
            (E::OutcomeLost, _) => (Self::Unconfirmed, Effect::GiveUp),
            (E::WaiterLeft | E::WaiterExpired, open) => (open, Effect::Leave),
            (E::LimitPassed, _) => (Self::Absent, Effect::GiveUp),
        }
    }
}
