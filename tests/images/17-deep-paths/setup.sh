n=$(printf '%0100d' 7)
mkdir -p "long/$n/$n" && echo deep >"long/$n/$n/$n$n-255-is-the-most-that-a-name-may-have"
ln -s "../../../$n/$n/$n$n" "long/$n/link"
echo edge >"long/$(printf '%099d' 1)"; echo edge >"long/$(printf '%0101d' 1)"
mkdir -p "long/p$(printf '%0154d' 1)/q" && echo prefix >"long/p$(printf '%0154d' 1)/q/$(printf '%0100d' 2)"
