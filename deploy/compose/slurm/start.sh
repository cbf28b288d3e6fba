#!/bin/sh
# Slurm on one machine: munge, a controller and two virtual nodes, all of whose files are in PENSTOCK_SLURM_FOLDER.
set -eu
folder=${PENSTOCK_SLURM_FOLDER:?the folder that this machine and the container share}
port=${PENSTOCK_SLURM_PORT:-16817}
host=$(hostname)
rm -rf "$folder"
mkdir -p "$folder/munge"
chmod 755 "$folder" "$folder/munge"
dd if=/dev/urandom of="$folder/munge/key" bs=1024 count=1 2>/dev/null
chmod 400 "$folder/munge/key"
chown -R munge:munge "$folder/munge"
cat >"$folder/slurm.conf" <<CONF
ClusterName=penstock-test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1
ReturnToService=2
KillWait=2
MailProg=/bin/true
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=1 RealMemory=500
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=1 RealMemory=500
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
CONF
printf 'CgroupAutomount=no\n' >"$folder/cgroup.conf"
export SLURM_CONF="$folder/slurm.conf"
setpriv --reuid=munge --regid=munge --clear-groups munged --force \
  --socket="$folder/munge/socket" --key-file="$folder/munge/key" --pid-file="$folder/munge/pid" \
  --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
for node in n1 n2; do
  mkdir -p "$folder/spool-$node"
  slurmd -D -N "$node" -f "$SLURM_CONF" &
done
exec slurmctld -D -i -f "$SLURM_CONF"
