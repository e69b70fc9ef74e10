//! Connections to brokers that ask who we are and show who they are: on real Apache Kafka.

use crate::cluster::Cluster;
use crate::cluster::security::Listener;
use crate::ground::Ground;

#[test]
fn a_secured_cluster_starts() {
    let cluster = Cluster::start_secured(1);
    let ground = Ground::at(&cluster.bootstrap());
    ground.named_topic("t", 1, &[]);
    assert!(cluster.secured_port(1, Listener::Mtls) > 0);
    assert!(cluster.certificates().path("ca.pem").exists());
}
