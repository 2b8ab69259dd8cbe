-- KEYS[7] outputs, KEYS[8] values of frames. Arguments: worker, epoch, items (field and whether it is an output). Bytes:
-- those of each item. Stores what events that are written next speak of: whoever reads them finds it. A repeated call
-- changes nothing. Returns 1, or -1 when the job is no longer this worker's.
local outputs, values = KEYS[7], KEYS[8]
if not is_mine() then
  return -1
end
for i, item in ipairs(args.items) do
  redis.call('HSET', item.is_output and outputs or values, item.field, ARGV[i + 1])
end
return 1
