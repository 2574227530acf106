//! An experiment as text without places: equal texts, equal experiments.

use std::fmt::Write as _;

use super::model::{Experiment, Lifecycle, RunState};

impl Experiment {
    /// Everything that the experiment says, one line per fact, sorted; where it stands in the file is left out. Two files
    /// with the same outline mean the same, in whatever language and order they are written.
    pub fn outline(&self) -> String {
        let mut text = String::new();
        let mut line = |key: &str, value: &dyn std::fmt::Display| {
            writeln!(text, "{key} = {value}").expect("a String takes every text");
        };
        line("experiment", &*self.name);
        if let Some(range) = &self.vlan_range {
            line("vlan_range", &format_args!("{}-{}", range.0, range.1));
        }
        for (low, high) in self.blacklisted() {
            line("vlan_blacklist", &format_args!("{low}-{high}"));
        }
        for (alias, vlan) in &self.vlans {
            match &vlan.tag {
                Some(tag) => line(&format!("vlan.{alias}"), &**tag),
                None => line(&format!("vlan.{alias}"), &"any"),
            }
        }
        for (name, vm) in &self.vms {
            let body = &vm.body;
            line(&format!("vm.{name}.type"), &body.kind.word());
            for (field, value) in body.config.changed() {
                line(&format!("vm.{name}.{}", field.key()), &format_args!("{:?}", field.arguments(value)));
            }
            for (index, disk) in body.usb_disks.iter().enumerate() {
                line(&format!("vm.{name}.usb_disks.{index}"), &format!("{:?}", disk.value));
            }
            for (index, nic) in body.networks.iter().enumerate() {
                let or = |part: Option<String>| part.unwrap_or_else(|| "any".to_owned());
                line(
                    &format!("vm.{name}.networks.{index}"),
                    &format_args!(
                        "{} {} {} {}",
                        nic.vlan,
                        or(nic.mac.map(|mac| mac.to_string())),
                        or(nic.driver.clone()),
                        or(nic.bridge.as_ref().map(ToString::to_string))
                    ),
                );
                if !nic.connected {
                    line(&format!("vm.{name}.networks.{index}.connected"), &false);
                }
                if let Some(qos) = &nic.qos {
                    line(&format!("vm.{name}.networks.{index}.qos"), qos);
                }
            }
            line(
                &format!("vm.{name}.state"),
                &match body.state {
                    RunState::Running => "running",
                    RunState::Paused => "paused",
                },
            );
            for other in &body.depends_on {
                line(&format!("vm.{name}.depends_on"), &**other);
            }
            if let Some(wait) = &body.wait_for {
                line(&format!("vm.{name}.wait_for.cc"), &wait.cc);
                line(&format!("vm.{name}.wait_for.timeout"), &wait.timeout);
                if let Some(ping) = &wait.ping {
                    line(&format!("vm.{name}.wait_for.ping"), &**ping);
                }
                if let Some(port) = &wait.port {
                    line(&format!("vm.{name}.wait_for.port"), &**port);
                }
                if let Some(command) = &wait.command {
                    line(&format!("vm.{name}.wait_for.command"), &**command);
                }
                for serial in &wait.serial {
                    line(&format!("vm.{name}.wait_for.serial.{}", serial.port), &serial.sought);
                }
            }
            if let Some(old) = &vm.renamed_from {
                line(&format!("vm.{name}.lifecycle.renamed_from"), &**old);
            }
            lifecycle(&body.lifecycle, &format!("vm.{name}"), &mut line);
        }
        for (name, tap) in &self.taps {
            line(&format!("tap.{name}.vlan"), &*tap.vlan);
            lifecycle(&tap.lifecycle, &format!("tap.{name}"), &mut line);
            if let Some(ip) = &tap.ip {
                line(&format!("tap.{name}.ip"), &format_args!("{}/{}", ip.0, ip.1));
            }
            if tap.dhcp.is_some() {
                line(&format!("tap.{name}.dhcp"), &true);
            }
            if let Some(bridge) = &tap.bridge {
                line(&format!("tap.{name}.bridge"), &**bridge);
            }
        }
        for (kind, objects) in &self.objects {
            for (name, object) in objects {
                line(&format!("{kind}.{name}"), &"");
                for (key, values) in &object.settings {
                    for value in values {
                        line(&format!("{kind}.{name}.{key}"), &**value);
                    }
                }
                lifecycle(&object.lifecycle, &format!("{kind}.{name}"), &mut line);
            }
        }
        for (name, entry) in &self.commands {
            for (key, lines) in [("create", &entry.create), ("destroy", &entry.destroy)] {
                for (index, text) in lines.iter().enumerate() {
                    line(&format!("command.{name}.{key}.{index}"), &**text);
                }
            }
            if let Some(check) = &entry.check {
                line(&format!("command.{name}.check"), &**check);
            }
            for other in &entry.depends_on {
                line(&format!("command.{name}.depends_on"), &**other);
            }
        }
        text
    }
}

fn lifecycle(lifecycle: &Lifecycle, object: &str, line: &mut dyn FnMut(&str, &dyn std::fmt::Display)) {
    if lifecycle.prevent_destroy.is_some() {
        line(&format!("{object}.lifecycle.prevent_destroy"), &true);
    }
    for path in &lifecycle.ignore_changes {
        line(&format!("{object}.lifecycle.ignore_changes"), &**path);
    }
}
