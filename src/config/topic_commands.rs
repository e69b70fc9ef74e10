//! The commands of `kafka-topics.sh` that create the topics of a config, for operators who may not
//! or do not want to let the gateway's user create them.

use std::fmt::Write as _;

use super::{Config, NewTopics};

/// One command per topic, for a shell.
#[must_use]
pub fn topic_commands(config: &Config, new: NewTopics) -> String {
    let mut out = String::new();
    for topic in config.topics() {
        let cluster = config.cluster(topic.cluster);
        let bootstrap = cluster.map_or(&config.settings.kafka.bootstrap, |it| &it.bootstrap);
        let bootstrap: Vec<_> = bootstrap.iter().map(ToString::to_string).collect();
        let _ = write!(
            out,
            "kafka-topics.sh --bootstrap-server {} --create --if-not-exists --topic {} \
             --partitions {}",
            bootstrap.join(","),
            topic.topic,
            new.partitions
        );
        if let Some(replication) = new.replication {
            let _ = write!(out, " --replication-factor {replication}");
        }
        for (key, value) in topic.configs() {
            let _ = write!(out, " --config {key}={value}");
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::{ConfigFile, Sources, load};
    use super::*;

    #[test]
    fn each_topic_has_a_command_with_the_policy_that_it_needs() {
        let file = ConfigFile {
            name: "g.toml".into(),
            text: include_str!("example.toml").to_owned(),
        };
        let sources = Sources {
            file: Some(file),
            ..Sources::default()
        };
        let config = load(sources).expect("the example is good").config;
        let new = NewTopics {
            partitions: 6,
            replication: Some(3),
        };
        let text = topic_commands(&config, new);
        let prefix = "kafka-topics.sh --bootstrap-server localhost:9092 --create --if-not-exists";
        assert!(text.lines().all(|it| it.starts_with(prefix)), "{text}");
        assert_eq!(text.lines().count(), 4);
        let wanted = "--topic balances --partitions 6 --replication-factor 3 --config \
                      cleanup.policy=compact\n";
        assert!(text.contains(wanted), "{text}");
        assert!(text.contains("--topic payments --partitions 6 --replication-factor 3\n"));
    }
}
