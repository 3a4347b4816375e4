#!/usr/bin/env bash
# Prolog of slurmd: are the GPUs that a job gets healthy? It runs as root on each node before the job starts there.
#
# Ends with status 0, or drains the node with a reason that `sinfo -R` shows and ends with status 1. Slurm drains a node
# whose prolog fails in any case and puts the job back into the queue, held unless SchedulerParameters has
# nohold_on_prolog_fail (infra/slurm/slurm.conf.template). Once repaired: scontrol update NodeName=... State=RESUME.
set -uo pipefail

# slurmd starts it without a search path.
PATH=${PATH:+$PATH:}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
max_used_mib=${ALTO_PROLOG_MAX_USED_MIB:-1024} # a driver alone takes some 500 MiB
answer_seconds=30
# Errors after which a GPU has to be reset or replaced: uncorrectable memory, row remapping, NVLink, lost from the bus, firmware.
fatal_xids='48|62|64|74|79|95|119|120|140'

drain() {
  echo "alto prolog: $1" >&2
  timeout "$answer_seconds" scontrol update NodeName="$SLURMD_NODENAME" State=DRAIN Reason="alto prolog: $1" >&2
  exit 1
}

ask() { timeout "$answer_seconds" nvidia-smi --id="$gpus" --format=csv,noheader,nounits "$@" 2>&1; }

gpus=${SLURM_JOB_GPUS:-}
[ -n "$gpus" ] || exit 0 # the job uses none
[[ $gpus =~ ^[0-9]+(,[0-9]+)*$ ]] || drain "SLURM_JOB_GPUS is no list of numbers"
wanted=$(tr ',' '\n' <<<"$gpus" | wc -l)

command -v nvidia-smi >/dev/null || drain "nvidia-smi is missing: is the driver installed?"
state=$(ask --query-gpu=index,ecc.errors.uncorrected.volatile.total,memory.used) ||
  drain "nvidia-smi failed or gave no answer in ${answer_seconds} s"
found=0
while IFS=', ' read -r index errors used; do
  [[ $index =~ ^[0-9]+$ ]] || continue
  found=$((found + 1))
  # A GPU without error correction answers [N/A].
  if [[ $errors =~ ^[0-9]+$ ]] && ((errors > 0)); then
    drain "GPU $index: $errors uncorrected memory errors since the driver started"
  fi
  [[ $used =~ ^[0-9]+$ ]] || drain "GPU $index: used memory is unknown"
  ((used <= max_used_mib)) || drain "GPU $index: $used MiB are in use before the job starts"
done <<<"$state"
((found == wanted)) || drain "nvidia-smi shows $found of the $wanted GPUs of the job"

# Older GPUs remap no rows, and say so by failing.
if remapped=$(ask --query-remapped-rows=remapped_rows.pending,remapped_rows.failure); then
  while IFS=', ' read -r pending failed; do
    # Numbers of rows from some drivers, yes or no from others.
    [[ ! $pending =~ ^(Yes|[1-9][0-9]*)$ ]] || drain "a GPU of $gpus waits for a reset to remap memory rows"
    [[ ! $failed =~ ^(Yes|[1-9][0-9]*)$ ]] || drain "a GPU of $gpus could not remap memory rows: replace it"
  done <<<"$remapped"
fi

# Not readable where the kernel restricts it; then the checks above have to do.
if kernel_log=$(dmesg --since '1 hour ago' 2>/dev/null); then
  xid=$(grep -oE "NVRM: Xid \([^)]*\): ($fatal_xids)\b" <<<"$kernel_log" | tail -n 1 | grep -oE '[0-9]+$')
  [ -z "$xid" ] || drain "Xid $xid in the kernel log of the last hour"
fi
exit 0
