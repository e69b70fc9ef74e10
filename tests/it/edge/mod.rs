//! The gateway's edge: every story on the development broker, and what needs no cluster or a broken
//! one.

mod brokers;
mod denied;
mod early_answers;
mod framing;
mod held_up;
mod impatient;
mod leaving;
mod listening;
mod machine;
mod malformed;
mod output;
mod pressure;
mod refused_starts;
mod signals;
mod soak;
mod tls;
mod two_clusters;

/// Every story of `scenarios/`.
mod dev {
    crate::scenarios::on_ground!(crate::ground::development);
}

/// And on the development broker as Redpanda: older versions, no topic ids.
mod redpanda {
    crate::scenarios::on_ground!(crate::ground::redpanda);
}
