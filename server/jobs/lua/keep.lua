-- KEYS[7] outputs, KEYS[8] values of frames. ARGV: worker, epoch, then the number of a key, a field and bytes of each.
-- Stores what events that are written next speak of: whoever reads them finds it. A repeated call changes nothing.
-- Returns 1, or -1 when the job is no longer this worker's.
if not is_mine(ARGV[1], ARGV[2]) then
  return -1
end
for i = 3, #ARGV, 3 do
  redis.call('HSET', KEYS[tonumber(ARGV[i])], ARGV[i + 1], ARGV[i + 2])
end
return 1
