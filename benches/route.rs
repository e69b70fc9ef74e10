//! Finding the route of a path: without parameters, with one, and for a path that leaves the routes
//! at a literal segment.

#![allow(
    clippy::cast_possible_truncation,
    reason = "its numbers are small, and it is no part of the product"
)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use sluicegate::config::{ClusterIndex, Config, PathPattern, QueryRoute, RouteEdge};
use sluicegate::http::{Method, Path};
use sluicegate::model::TopicName;
use sluicegate::route::{Routed, Router};

fn query(path: String) -> QueryRoute {
    QueryRoute {
        name: path.clone(),
        line: 1,
        path: PathPattern::parse(&path).expect("a good pattern"),
        cluster: ClusterIndex::default(),
        topic: TopicName::new("t").expect("a legal name"),
        key: None,
        partitioner: None,
        edge: RouteEdge::default(),
    }
}

fn find(c: &mut Criterion) {
    let mut paths: Vec<String> = (0..100).map(|n| format!("/things{n}/{{id}}")).collect();
    paths.extend(["/accounts", "/accounts/{id}", "/accounts/{id}/events"].map(String::from));
    paths.extend(["/accounts/all/totals", "/{a}/{b}/{c}/{d}"].map(String::from));
    let config = Config {
        queries: paths.into_iter().map(query).collect(),
        ..Config::default()
    };
    let router = Router::new(&config).expect("no conflict");
    let mut group = c.benchmark_group("route");
    for (name, path) in [
        ("literal", "/accounts"),
        ("parameter", "/accounts/4711/events"),
        ("back", "/accounts/all/events"),
    ] {
        let path = Path::parse(path).expect("a good path");
        group.bench_function(name, |b| {
            b.iter(|| match router.route(Method::Get, black_box(&path)) {
                Routed::To(found) => found.params.len(),
                other => panic!("{other:?}"),
            });
        });
    }
    group.finish();
}

criterion_group!(benches, find);
criterion_main!(benches);
