# What the virtual machine does once its root is in place: runs command.sh, tells the host its exit code, ends.
# The host's shell runs this as process 1, so it also collects orphans.

exec </dev/null >/dev/console 2>&1
# As many as a login has: the kernel gives its first process 1024.
ulimit -n 65536
cd /run/vm || exit

# The command writes into pipes, as under most other programs. Were its output the host's files themselves,
# `>/dev/stderr` in a script would empty one.
mkfifo /run/stdout /run/stderr
cat </run/stdout >>stdout &
out=$!
cat </run/stderr >>stderr &
err=$!
: >started
setsid sh /run/vm/command.sh >/run/stdout 2>/run/stderr &
wait $!
status=$?

# What it left behind holds the pipes open, and the two readers are to end.
for process in /proc/[0-9]*; do
    process=${process#/proc/}
    case $process in
        1 | $out | $err) ;;
        *) kill -KILL "$process" 2>/dev/null ;;
    esac
done
wait $out $err
sync
# In one step, so that the host never reads half of it.
echo $status >status.new
mv status.new status
echo b >/proc/sysrq-trigger
sleep 3600
