use std::path::Path;

use super::*;

fn arguments(scale: f64) -> Arguments {
    let brokers = vec![BrokerAddress::new("a", 1), BrokerAddress::new("b", 2)];
    Arguments {
        file: "x.toml".into(),
        brokers,
        driver: DriverArgument::Native,
        scale,
        keep: false,
        json: false,
        limits: None,
        html: None,
    }
}

fn step(text: &str) -> Step {
    toml::from_str(text).unwrap()
}

#[test]
fn every_scenario_that_comes_with_the_program_is_one() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut count = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let file = entry.unwrap().path();
        let scenario = Scenario::read(&file).unwrap_or_else(|error| panic!("{error}"));
        assert!(!scenario.title.is_empty() && !scenario.steps.is_empty(), "{}", file.display());
        for scale in [1.0, 0.001] {
            for step in &scenario.steps {
                let arguments = Arguments { file: file.clone(), ..arguments(scale) };
                step.measurement(&arguments, "id").unwrap_or_else(|error| panic!("{error}"));
            }
        }
        count += 1;
    }
    assert!(count >= 8, "{count} scenarios");
}

#[test]
fn a_step_is_a_command_line() {
    let step = step(
        "name = \"n\"\nrun = \"produce\"\ntopic = \"t\"\nrecords = 1000\nwarmup = \"2s\"\nrate = \"50MB\"\n\
         idempotent = true\njson = false\nset = [\"a=1\", \"b=2\"]",
    );
    let line = step.line(&arguments(0.01), "7").join(" ");
    for part in [
        "produce --brokers a:1,b:2 --driver native ",
        " --topic t-7",
        " --records 10",
        " --warmup 20ms",
        " --rate 50MB",
        " --idempotent",
        " --set a=1 --set b=2",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(!line.contains("json"), "{line}");
    let Verb::Produce(found) = step.measurement(&arguments(1.0), "7").unwrap().verb else { panic!("produce") };
    assert_eq!((found.target.topic.as_str(), found.load.records), ("t-7", Some(1000)));
}

#[test]
fn a_step_that_is_no_command_is_named_with_the_reason() {
    for (text, reason) in [
        ("name = \"n\"\nrun = \"fly\"", "fly"),
        ("name = \"n\"\nrun = \"produce\"\nheight = 3", "--height"),
        ("name = \"n\"\nrun = \"produce\"\nproducers = 0", "--producers"),
        ("name = \"n\"\nrun = \"end-to-end\"", "--rate"),
    ] {
        let error = step(text).measurement(&arguments(1.0), "7").unwrap_err().to_string();
        assert!(error.contains("x.toml: step `n`") && error.contains(reason), "{error}");
    }
}

#[test]
fn files_that_are_no_scenarios_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.toml");
    assert!(matches!(Scenario::read(&path), Err(ScenarioError::Read { .. })));
    for text in
        ["title = 1", "title = \"t\"", "title = \"t\"\nstep = []\nmore = 1", "title = \"t\"\n[[step]]\nname = \"n\""]
    {
        std::fs::write(&path, text).unwrap();
        let error = Scenario::read(&path).unwrap_err();
        assert!(
            matches!(error, ScenarioError::Parse { .. }) && error.to_string().contains("s.toml"),
            "{text}: {error}"
        );
    }
}

#[test]
fn parts_are_rounded_up() {
    assert_eq!(scaled(Extent::Records(1000), 0.0001), "1");
    assert_eq!(scaled(Extent::Records(1000), 2.0), "2000");
    assert_eq!(scaled(Extent::Time(Duration::from_secs(30)), 0.1), "3000ms");
    assert_eq!(scaled(Extent::Records(0), 5.0), "0");
}
