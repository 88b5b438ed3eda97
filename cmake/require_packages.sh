# Sourced by tests/run and examples/run.

# require_packages <install|no-install> <package>...: makes sure that these Debian packages are there.
require_packages() {
  local mode=$1 missing=() package sudo=
  shift
  if [[ $(. /etc/os-release 2>/dev/null && echo "$ID $VERSION_ID") != "debian 12" ]]; then
    echo "Not Debian 12; what these packages of Debian 12 hold is needed: $*"
    return
  fi
  for package; do
    if [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) != installed ]]; then
      missing+=("$package")
    fi
  done
  if ((${#missing[@]} == 0)); then
    return
  fi
  if [[ $mode == no-install ]]; then
    echo "missing packages: ${missing[*]}"
    exit 1
  fi
  if ((EUID != 0)); then
    sudo=sudo
  fi
  echo "installing: ${missing[*]}"
  $sudo apt-get -q update
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends "${missing[@]}"
}

# As many compilers at once as there are cores, and 2.5 GB of memory for each.
parallel_jobs() {
  local jobs memory
  jobs=$(getconf _NPROCESSORS_ONLN)
  memory=$(awk '/MemAvailable/ { print int($2 / 2500000) }' /proc/meminfo 2>/dev/null || echo "$jobs")
  ((memory >= 1)) || memory=1
  echo $((memory < jobs ? memory : jobs))
}
