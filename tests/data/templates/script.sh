cat "$1"
echo "$2"
