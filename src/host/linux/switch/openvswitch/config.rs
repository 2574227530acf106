//! Settings of a bridge: `bridge config` and netflow.

use std::collections::BTreeMap;

use super::placing::join;
use super::rows::{CONFIG, MARK, is, still_there};
use super::{OpenVswitch, wrong};
use crate::host::{Netflow, NetworkError};
use crate::name::BridgeName;
use crate::ovsdb::{Datum, Mutation, Operation, Row, Uuid};

/// The columns of a bridge that can be set, beside the keys of `other_config` (ovs-vswitchd.conf.db(5)).
const FLAGS: &[&str] = &["stp_enable", "rstp_enable", "mcast_snooping_enable"];

/// One `key=value`.
struct Setting {
    key: String,
    value: String,
}

impl Setting {
    fn parse(what: &str, word: &str) -> Result<Self, NetworkError> {
        let expected = "expected stp_enable=true, rstp_enable=true, mcast_snooping_enable=true, fail_mode=secure, \
                        fail_mode=standalone or other_config:KEY=VALUE";
        let wrong = || wrong(what, format!("`{word}` is no setting of a bridge of Open vSwitch: {expected}"));
        let (key, value) = word.split_once('=').ok_or_else(wrong)?;
        // As ovs-vsctl reads it.
        let key = key.replace('-', "_");
        let known = match key.split_once(':') {
            Some(("other_config", rest)) => !rest.is_empty() && !value.is_empty(),
            Some(_) => false,
            None if key == "fail_mode" => matches!(value, "secure" | "standalone"),
            None => FLAGS.contains(&key.as_str()) && matches!(value, "true" | "false"),
        };
        if !known {
            return Err(wrong());
        }
        let key = match word.split_once('=') {
            Some((raw, _)) if raw.starts_with("other_config:") => raw.to_owned(),
            _ => key,
        };
        Ok(Self { key, value: value.to_owned() })
    }
}

impl OpenVswitch {
    pub(super) fn set_config(&mut self, bridge: &BridgeName, config: &str) -> Result<(), NetworkError> {
        let what = format!("configure bridge {bridge}");
        let settings: Vec<Setting> =
            config.split_whitespace().map(|word| Setting::parse(&what, word)).collect::<Result<_, _>>()?;
        if settings.is_empty() {
            return Err(wrong(&what, "expected KEY=VALUE"));
        }
        self.settle(&what)?;
        let picture = self.picture(&what)?;
        self.vacant(&what, &picture, bridge)?;
        let datapath = self.datapath;
        let number = self.change(&what, |picture| {
            let mut operations = Vec::new();
            if picture.bridge(bridge.as_str()).is_none() {
                operations.extend(join(datapath, picture, bridge.as_str(), "bridge", "ports", Vec::new()));
            }
            let name = [("name", "==", Datum::from(bridge.as_str()))];
            for Setting { key, value } in &settings {
                let (column, datum) = match key.strip_prefix("other_config:") {
                    Some(key) => ("other_config", Datum::map([(key, value.as_str())])),
                    None if key == "fail_mode" => ("fail_mode", Datum::from(value.as_str())),
                    None => (key.as_str(), Datum::Boolean(value == "true")),
                };
                if column == "other_config" {
                    // A key keeps its old value otherwise.
                    let key = Datum::texts(key.strip_prefix("other_config:"));
                    let set = [(column, Mutation::Delete(key)), (column, Mutation::Insert(datum))];
                    operations.push(Operation::mutate("Bridge", &name, &set));
                } else {
                    operations.push(Operation::update("Bridge", &name, &Row::new([(column, datum)])));
                }
                let note = format!("{CONFIG}{key}");
                let remember = [
                    ("external_ids", Mutation::Delete(Datum::texts([note.as_str()]))),
                    ("external_ids", Mutation::Insert(Datum::map([(note.as_str(), value.as_str())]))),
                ];
                operations.push(Operation::mutate("Bridge", &name, &remember));
            }
            Ok(operations)
        })?;
        number.map_or(Ok(()), |number| self.applied(&what, number))
    }

    pub(super) fn list_exporting(&mut self) -> Result<BTreeMap<BridgeName, bool>, NetworkError> {
        if !self.is_there() {
            return Ok(BTreeMap::new());
        }
        let picture = self.picture("list netflow")?;
        let bridges = picture.bridges.iter().filter_map(|row| {
            let ours = row.netflow.is_some() && row.ids.contains_key(NETFLOW);
            Some((BridgeName::new(&row.name).ok()?, ours))
        });
        Ok(bridges.collect())
    }

    pub(super) fn set_netflow(&mut self, bridge: &BridgeName, settings: Option<&Netflow>) -> Result<(), NetworkError> {
        let what = match settings {
            Some(_) => format!("export netflow of bridge {bridge}"),
            None => format!("stop exporting netflow of bridge {bridge}"),
        };
        if settings.is_none() && !self.is_there() {
            return Ok(());
        }
        let number = self.change(&what, |picture| {
            let Some(row) = picture.bridge(bridge.as_str()) else {
                return match settings {
                    Some(_) => Err(wrong(&what, "there is no bridge of that name")),
                    None => Ok(Vec::new()),
                };
            };
            let ours = row.netflow.as_ref().filter(|_| row.ids.contains_key(NETFLOW));
            if row.netflow.is_some() && ours.is_none() {
                return match settings {
                    Some(_) => Err(wrong(&what, "somebody else exports netflow of it already")),
                    None => Ok(Vec::new()),
                };
            }
            let (value, note) = match settings {
                Some(_) => {
                    (Datum::from(Uuid::New("netflow".to_owned())), Mutation::Insert(Datum::map([(NETFLOW, "1")])))
                }
                None => (Datum::none(), Mutation::Delete(Datum::texts([NETFLOW]))),
            };
            let mut operations = vec![still_there(row)];
            if let Some(Netflow { targets, active_timeout }) = settings {
                let new = Row::new([("targets", Datum::texts(targets.iter().map(String::as_str)))])
                    .with("active_timeout", i64::from(*active_timeout))
                    .with("external_ids", Datum::map([(MARK, "netflow")]));
                operations.push(Operation::insert("NetFlow", Some("netflow"), &new));
            } else if ours.is_none() {
                return Ok(Vec::new());
            }
            operations.push(Operation::update("Bridge", &is(&row.uuid), &Row::new([("netflow", value)])));
            operations.push(Operation::mutate("Bridge", &is(&row.uuid), &[("external_ids", note)]));
            Ok(operations)
        })?;
        number.map_or(Ok(()), |number| self.applied(&what, number))
    }
}

/// In the bridge's `external_ids`: its netflow is the engine's.
const NETFLOW: &str = "megaform-netflow";
