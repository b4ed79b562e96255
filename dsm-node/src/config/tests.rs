//! Resolution, from maps.

use super::*;

/// Names and values.
type Variables = &'static [(&'static str, &'static str)];

fn resolve(builder: Builder, variables: &[(&str, &str)]) -> Result<Config> {
    builder.resolve_in(&Environment::of(variables.iter().copied()))
}

fn refusal(variables: &[(&str, &str)]) -> String {
    resolve(Builder::new(), variables).expect_err("this cannot work").to_string()
}

#[test]
fn nothing_said_is_a_cluster_of_one() {
    let config = resolve(Builder::new(), &[]).expect("alone");
    assert_eq!((config.rank, config.nodes, config.rendezvous.as_str()), (NodeId(0), 1, ALONE));
    assert_eq!(config.transport, TransportKind::Tcp);
    assert_eq!(config.geometry.base().0, limits::REGION_BASE_DEFAULT);
    assert_eq!(config.geometry.size(), limits::REGION_SIZE_DEFAULT);
    assert_eq!(config.patience, PATIENCE_DEFAULT);
    assert!(!config.trust_network);
}

#[test]
fn our_variables_say_everything() {
    let config = resolve(
        Builder::new(),
        &[
            ("DSM_RANK", "2"),
            ("DSM_NODES", "4"),
            ("DSM_RENDEZVOUS", "unix:here"),
            ("DSM_LISTEN", "127.0.0.1:0"),
            ("DSM_TRANSPORT", "unix"),
            ("DSM_REGION_BASE", "0x3000_0000_0000"),
            ("DSM_REGION_SIZE", "1GiB"),
            ("DSM_PAGE_SIZE", "64KiB"),
            ("DSM_REPLICAS", "0"),
            ("DSM_JOIN_TIMEOUT", "5s"),
            ("DSM_TRUST_NETWORK", "1"),
        ],
    )
    .expect("all fits");
    assert_eq!((config.rank, config.nodes, config.rendezvous.as_str()), (NodeId(2), 4, "unix:here"));
    assert_eq!(config.geometry, Geometry::new(0x3000_0000_0000, 1 << 30, 64 << 10).expect("a shape"));
    assert_eq!(config.transport, TransportKind::Unix);
    assert_eq!(config.listen.as_deref(), Some("127.0.0.1:0"));
    assert_eq!(config.patience, Duration::from_secs(5));
    assert!(config.trust_network);
}

#[test]
fn the_program_wins_over_the_environment() {
    let builder = Builder::new().rank(1).nodes(2).rendezvous("127.0.0.1:9").page_size(8192);
    let variables =
        [("DSM_RANK", "7"), ("DSM_NODES", "9"), ("DSM_RENDEZVOUS", "unix:x"), ("SLURM_PROCID", "3")];
    let config = resolve(builder, &variables).expect("fits");
    assert_eq!((config.rank, config.nodes, config.rendezvous.as_str()), (NodeId(1), 2, "127.0.0.1:9"));
    assert_eq!(config.geometry.page_size(), 8192);
}

#[test]
fn our_variables_win_over_a_launcher() {
    let variables = [
        ("PMI_RANK", "5"),
        ("PMI_SIZE", "8"),
        ("DSM_RANK", "1"),
        ("DSM_NODES", "2"),
        ("DSM_RENDEZVOUS", "127.0.0.1:9"),
    ];
    let config = resolve(Builder::new(), &variables).expect("fits");
    assert_eq!((config.rank, config.nodes), (NodeId(1), 2));
}

#[test]
fn a_launcher_on_one_machine_needs_nothing_else() {
    let mut variables =
        vec![("PMI_RANK", "1"), ("PMI_SIZE", "2"), ("MPI_LOCALNRANKS", "2"), ("PMI_JOBID", "job-9")];
    let tcp = resolve(Builder::new(), &variables).expect("fits");
    assert!(tcp.rendezvous.starts_with("127.0.0.1:2"), "{}", tcp.rendezvous);
    variables.push(("DSM_TRANSPORT", "unix"));
    let unix = resolve(Builder::new(), &variables).expect("fits");
    assert!(unix.rendezvous.starts_with("unix:dsm-"), "{}", unix.rendezvous);
}

#[test]
fn nonsense_is_refused_by_name_value_and_what_is_allowed() {
    let cases: [(Variables, [&str; 3]); 12] = [
        (&[("DSM_NODES", "65"), ("DSM_RANK", "0")], ["DSM_NODES", "65", "1 to 64"]),
        (&[("DSM_NODES", "0"), ("DSM_RANK", "0")], ["DSM_NODES", "\"0\"", "1 to 64"]),
        (&[("DSM_NODES", "4"), ("DSM_RANK", "4")], ["DSM_RANK", "\"4\"", "0 to 3"]),
        (&[("DSM_NODES", "4"), ("DSM_RANK", "two")], ["DSM_RANK", "two", "number"]),
        (&[("DSM_NODES", "4")], ["DSM_NODES", "DSM_RANK", "dsm run"]),
        (&[("DSM_RANK", "1")], ["DSM_RANK", "DSM_NODES", "1 to"]),
        (&[("DSM_NODES", "2"), ("DSM_RANK", "1")], ["2 nodes", "DSM_RENDEZVOUS", "dsm run"]),
        (&[("DSM_PAGE_SIZE", "5000")], ["DSM_PAGE_SIZE", "5000", "power of two"]),
        (&[("DSM_REGION_SIZE", "64GB")], ["DSM_REGION_SIZE", "64GB", "64GiB"]),
        (&[("DSM_REGION_BASE", "0x10000000000001")], ["DSM_REGION_BASE", "0x10000000000001", "multiple"]),
        (&[("DSM_TRANSPORT", "rdma")], ["DSM_TRANSPORT", "rdma", "tcp or unix"]),
        (&[("DSM_RENDEZVOUS", "nowhere")], ["DSM_RENDEZVOUS", "nowhere", "host:port"]),
    ];
    for (variables, parts) in cases {
        let message = refusal(variables);
        assert!(parts.iter().all(|part| message.contains(part)), "{variables:?}: {message}");
        assert!(!message.contains('\n'), "one line: {message}");
    }
}

#[test]
fn one_crash_is_survived_unless_the_user_says_otherwise() {
    let replicas = |builder: Builder, variables: &[(&str, &str)]| {
        resolve(builder, variables).map(|config| config.replicas).map_err(|error| error.to_string())
    };
    let four = [("DSM_RANK", "0"), ("DSM_NODES", "4"), ("DSM_RENDEZVOUS", "127.0.0.1:1")];
    assert_eq!(replicas(Builder::new(), &[]), Ok(0), "alone, there is nobody to keep anything");
    assert_eq!(replicas(Builder::new(), &four), Ok(1));
    assert_eq!(replicas(Builder::new().replicas(2), &four), Ok(2));
    let none = [&four[..], &[("DSM_REPLICAS", "0")]].concat();
    assert_eq!(replicas(Builder::new(), &none), Ok(0));
}

#[test]
fn times_of_the_membership_must_fit_each_other() {
    let builder = Builder::new().lease(Duration::from_secs(1)).heartbeat(Duration::from_secs(2));
    assert!(resolve(builder, &[]).expect_err("too slow").to_string().contains("DSM_HEARTBEAT"));
    assert!(refusal(&[("DSM_LEASE", "1ms")]).contains("DSM_LEASE"));
    let builder = Builder::new().lease(Duration::from_secs(2)).heartbeat(Duration::from_secs(1));
    let config = resolve(builder, &[]).expect("a lease outlasts two heartbeats");
    assert_eq!(config.settings.lease(), Duration::from_secs(2));
    let config = resolve(Builder::new(), &[("DSM_LEASE", "500ms")]).expect("a lease of half a second");
    assert_eq!(config.settings.heartbeat(), Duration::from_millis(100));
}

#[test]
fn credentials_are_refused() {
    assert!(refusal(&[("DSM_CREDENTIALS", "/key")]).contains("/key"));
}

#[test]
fn a_count_that_contradicts_the_launcher_names_both() {
    let message = refusal(&[("DSM_NODES", "3"), ("PMI_RANK", "0"), ("PMI_SIZE", "2")]);
    assert!(message.contains('3') && message.contains("PMI started 2"), "{message}");
}

#[test]
fn the_launchers_socket_goes_with_its_address() {
    let env = Environment::of([
        ("DSM_RANK", "0"),
        ("DSM_NODES", "2"),
        ("DSM_RENDEZVOUS", "127.0.0.1:9"),
        (RENDEZVOUS_FD, "10"),
    ]);
    // `Dsm::join` fills the builder from the environment first, `Dsm::builder` at the join only.
    for builder in [Builder::new(), Builder::new().filled(&env).expect("fits")] {
        let config = builder.resolve_in(&env).expect("fits");
        assert_eq!(inherited_number(&config, &env), Some("10"));
    }
    let config = Builder::new().rendezvous("127.0.0.1:10").resolve_in(&env).expect("fits");
    assert_eq!(inherited_number(&config, &env), None, "the program meets elsewhere");
}
