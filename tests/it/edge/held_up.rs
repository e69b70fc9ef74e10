//! A partition that can't be read delays only subscribers that lack records of it. Two nodes of a
//! development broker, of which one is down and has a partition that the other lacks.

use sluicegate::broker::{NodeId, Settings};
use sluicegate::demo::listener::BrokerHandle;
use sluicegate::model::Partition;

use crate::app::App;
use crate::events::Events;
use crate::gateway::Gateway;
use crate::ground::{Ground, random};

const SECOND: NodeId = NodeId(2);

struct Stage {
    broker: BrokerHandle,
    app: App,
    gateway: Gateway,
    /// Partitions led by the first and by the second node.
    here: u32,
    away: u32,
    /// Event id of a subscriber that lacks "here 1".
    id: String,
}

impl Stage {
    /// The gateway's window starts after `away 1` and `here 1`.
    fn new() -> Self {
        let two = Settings {
            nodes: 2,
            ..Settings::default()
        };
        let broker = BrokerHandle::start(two, random(), ([127, 0, 0, 1], 0).into());
        let broker = broker.expect("free ports");
        let app = App::new(&Ground::at(&broker.bootstrap()));
        let led_by = |node: NodeId| {
            let topic = app.events.clone();
            let find = move |p: &u32, broker: &mut sluicegate::broker::Broker| {
                let leader = broker.leader(&topic, Partition(*p)).expect("it is there").0;
                leader == Some(node)
            };
            broker.with(move |broker| (0..3).find(|p| find(p, broker)))
        };
        let here = led_by(NodeId(1)).expect("partitions are spread");
        let away = led_by(SECOND).expect("partitions are spread");
        let write = |partition, value| {
            let to = app.produce(&app.events).partition(partition);
            to.keyed([("k", value)]);
        };
        write(away, "away 1");
        let id = Events::open(app.gateway(1).address(), "/events/live").wait_for_id();
        write(here, "here 1");
        let flags = ["--kafka-request-timeout=1s"];
        let gateway = Gateway::launch_with(&app.config(2, ""), &flags);
        gateway.wait_serving();
        Self {
            broker,
            app,
            gateway,
            here,
            away,
            id,
        }
    }

    fn write(&self, partition: u32, value: &str) {
        let to = self.app.produce(&self.app.events).partition(partition);
        to.keyed([("k", value)]);
    }

    fn judge(self, back: impl FnOnce(&BrokerHandle)) {
        let address = self.gateway.address();
        let mut lacks_both = Events::open(address, "/events/all");
        assert_eq!(lacks_both.next().data, "here 1");
        let mut lacks_here = Events::resume(address, "/events/live", &self.id);
        assert_eq!(lacks_here.next().data, "here 1");
        self.write(self.here, "here 2");
        assert_eq!(lacks_here.next().data, "here 2", "it is live");
        assert_eq!(lacks_both.next().data, "here 2", "what can be had");
        back(&self.broker);
        assert_eq!(lacks_both.next().data, "away 1");
        self.write(self.away, "away 2");
        self.write(self.here, "here 3");
        for stream in [&mut lacks_both, &mut lacks_here] {
            let mut rest = [stream.next().data, stream.next().data];
            rest.sort();
            assert_eq!(rest, ["away 2", "here 3"]);
        }
    }
}

#[test]
fn a_partition_that_nobody_leads_holds_up_only_those_who_lack_it() {
    let stage = Stage::new();
    stage.broker.with(|broker| broker.stop_node(SECOND));
    stage.judge(|broker| broker.with(|it| it.start_node(SECOND)));
}

#[test]
fn a_partition_whose_leader_is_frozen_holds_up_only_those_who_lack_it() {
    let stage = Stage::new();
    stage.broker.with(|broker| broker.freeze_node(SECOND));
    stage.judge(|broker| broker.with(|it| it.thaw_node(SECOND)));
}
